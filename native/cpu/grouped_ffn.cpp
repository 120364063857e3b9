// Forward 2 S d F + 2 S d f FLOPs (S kept slots, f hidden, F = f or 2 f), backward twice that. Bytes at least: weights once, x, out, and in
// training z once.
//
// Parallel over items, the largest first: a piece of an expert's rows going forward and for dz and dx; a block of an expert's weight gradient
// afterwards. Outputs of items are disjoint, so a popular expert is shared by all threads and no sum depends on them.
#include "ops/grouped_ffn.h"

#include <algorithm>
#include <vector>

#include "core/dispatch.h"
#include "cpu/pooled.h"
#include "cpu/simd/ffn_epilogue.h"
#include "cpu/simd/gemm_engine.h"

namespace libmoe::cpu::LIBMOE_ISA {

// cheap_experts.cpp
void cheap(const CheapExperts& e, const TensorView& out);
void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors);
namespace {

// Rows per item at most: enough to use a packed block of weights about forty times.
constexpr int64_t kPieceRows = 40 * kTileRows;

struct Item {
  int32_t expert;
  int64_t m0, m1, n0, n1;  // rows and columns of whatever the item computes
};
void largest_first(std::vector<Item>& items) {
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return (a.m1 - a.m0) * (a.n1 - a.n0) > (b.m1 - b.m0) * (b.n1 - b.n0); });
}
template <class F> void for_items(const std::vector<Item>& items, F&& body) {
  parallel_for(int64_t(items.size()), [&](int64_t i) { body(items[size_t(i)]); });
}

// The plan is trusted no further than memory safety asks: it may have been built by hand.
void check_plan(const GroupedFfn& f) {
  const int32_t *offsets = f.offsets.as<int32_t>(), *rows = f.rows.as<int32_t>(), *inverse = f.inverse.as<int32_t>();
  const int64_t experts = f.offsets.elements() - 1, slots = f.rows.elements();
  bool good = offsets[0] == 0 && offsets[experts] <= slots;
  for (int64_t e = 0; e < experts; ++e) good &= offsets[e] <= offsets[e + 1];
  for (int64_t r = 0; good && r < offsets[experts]; ++r) good = rows[r] >= 0 && rows[r] < slots && inverse[rows[r]] == r;
  for (int64_t s = 0; good && s < slots; ++s) good = inverse[s] >= -1 && inverse[s] < offsets[experts];
  if (!good) fail("ERR_LIBMOE_ARGUMENT", "groupedFfn: the plan's rows, offsets and inverse do not belong together; make it with dispatchPlan()");
}

template <class P> class Layer {
 public:
  using T = typename P::In;
  using A = typename P::Acc;
  static constexpr int L = Vec<A>::lanes;
  static constexpr int64_t tile = kTileColumns<A>;

  explicit Layer(const GroupedFfn& layer)
      : f(layer), offsets(f.offsets.as<int32_t>()), experts(f.offsets.elements() - 1), kept(offsets[experts]), top_k(f.weights.shape[1]), d(f.x.shape[1]),
        hidden(f.down.shape[2]), full(f.gated ? 2 * hidden : hidden), packed(f.gated ? (hidden + L - 1) / L * tile : hidden), token(kept), weight(kept), interleaved(packed) {
    const int32_t* rows = f.rows.as<int32_t>();
    for (int64_t r = 0; r < kept; ++r) {
      token[r] = int32_t(rows[r] / top_k);
      weight[r] = f.weights.template as<A>()[rows[r]];
    }
    // A gated tile takes L gate rows of `up` and the L up rows that belong to them.
    if (f.gated)
      for (int64_t n = 0; n < packed; ++n) {
        const int64_t column = n / tile * L + n % L;
        interleaved[n] = column >= hidden ? -1 : int32_t(n % tile < L ? column : hidden + column);
      }
  }

  // Pieces of the experts' rows times pieces of `columns`; both shrink while there are fewer items than threads can share.
  std::vector<Item> row_items(int64_t columns, bool split_columns) const {
    const int64_t wanted = 3 * thread_count();
    int64_t height = kPieceRows, width = (columns + tile - 1) / tile * tile;
    for (;;) {
      std::vector<Item> items;
      for (int64_t e = 0; e < experts; ++e) {
        const int64_t count = offsets[e + 1] - offsets[e];
        if (count == 0) continue;
        const int64_t pieces = (count + height - 1) / height, rows = ((count + pieces - 1) / pieces + kTileRows - 1) / kTileRows * kTileRows;
        for (int64_t m = 0; m < count; m += rows)
          for (int64_t n = 0; n < columns; n += width)
            items.push_back({int32_t(e), offsets[e] + m, offsets[e] + std::min(count, m + rows), n, std::min(columns, n + width)});
      }
      const bool more = int64_t(items.size()) < wanted && kept > 0;
      if (more && height > 10 * kTileRows) height = (height / kTileRows + 1) / 2 * kTileRows;
      else if (more && split_columns && width > tile) width = (width / tile + 1) / 2 * tile;
      else {
        largest_first(items);
        return items;
      }
    }
  }

  // Rows [m0, m1), packed columns [n0, n1) of x up^T: the pre-activation to z, the activation to h; either may be null.
  void up(const Item& item, T* z, T* h) const {
    Product<P> p;
    p.a = {f.x.template as<T>(), d, token.get()};
    p.b = {f.up.template as<T>() + item.expert * full * d, d, f.gated ? interleaved.get() : nullptr};
    p.m = kept;
    p.n = packed;
    p.k = d;
    const auto activate_tile = up_tile_of<T>(f.activation);
    const T* bias = f.up_bias ? f.up_bias.template as<T>() + item.expert * full : nullptr;
    multiply<P>(p, item.m0, item.m1, item.n0, item.n1, nullptr, 0, false, [&](int64_t m, int r, int64_t n, int64_t, const A* sums, int64_t stride) {
      activate_tile({bias, z ? z + m * full : nullptr, h ? h + m * hidden : nullptr, hidden, f.gated}, r, n, sums, stride);
    });
  }

  // Rows and columns of h down^T (+ bias), times the gate weight, to y [kept, d].
  void down(const Item& item, const T* h, T* y) const {
    Product<P> p;
    p.a = {h, hidden, nullptr};
    p.b = {f.down.template as<T>() + item.expert * d * hidden, hidden, nullptr};
    p.m = kept;
    p.n = d;
    p.k = hidden;
    const T* bias = f.down_bias ? f.down_bias.template as<T>() + item.expert * d : nullptr;
    multiply<P>(p, item.m0, item.m1, item.n0, item.n1, nullptr, 0, false, [&](int64_t m, int r, int64_t n, int64_t count, const A* sums, int64_t stride) {
      for (int i = 0; i < r; ++i) {
        const Vec<A> w(weight[m + i]);
        for_vectors<A>(count, [&](int64_t j, int lanes) {
          Vec<A> x = load(sums + i * stride + j);
          if (bias) x = x + load_count(bias + n + j, lanes);
          store_count(y + (m + i) * d + n + j, w * x, lanes);
        });
      }
    });
  }

  // out[t] = sum over the token's slots, ascending, of the rows y.
  void combine(const T* y, T* out) const {
    const int32_t* inverse = f.inverse.as<int32_t>();
    parallel_ranges(f.x.shape[0], 32, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for_vectors<A>(d, [&](int64_t j, int lanes) {
          Vec<A> sum = Vec<A>::zero();
          for (int64_t s = t * top_k; s < (t + 1) * top_k; ++s)
            if (inverse[s] >= 0) sum += load_count(y + inverse[s] * d + j, lanes);
          store_count(out + t * d + j, sum, lanes);
        });
    });
  }

  void forward(T* z, T* out) const {
    const Pooled<T> h(kept * hidden), y(kept * d);
    const std::vector<Item> pieces = row_items(packed, false);
    if (int64_t(pieces.size()) >= 2 * thread_count() || thread_count() == 1) {
      for_items(pieces, [&](Item item) {
        up(item, z, h);
        item.n1 = d;
        down(item, h, y);
      });
    } else {  // few rows: share the columns
      for_items(row_items(packed, true), [&](const Item& item) { up(item, z, h); });
      for_items(row_items(d, true), [&](const Item& item) { down(item, h, y); });
    }
    combine(y, out);
  }

  void backward(const T* z, const T* d_out, const GroupedFfnGradients& g) const {
    const Pooled<T> dz(kept * full), weighted(kept * hidden), dx_rows(g.dx ? kept * d : 0), z_again(z ? 0 : kept * full);
    A* d_weights = g.weights ? g.weights.as<A>() : nullptr;
    if (d_weights) std::fill_n(d_weights, f.rows.elements(), A(0));
    for_items(row_items(packed, false), [&](Item item) {
      if (!z) up(item, z_again, nullptr);
      slopes(item, z ? z : z_again.get(), d_out, dz, weighted, d_weights);
      if (g.dx) input_rows(item, dz, dx_rows);
    });
    if (g.dx) combine(dx_rows, g.dx.as<T>());
    const T* x = f.x.template as<T>();
    if (g.up) weight_gradient({dz, full, nullptr}, full, {x, d, token.get()}, d, g.up.as<A>(), g.add_up);
    if (g.down) weight_gradient({d_out, d, token.get()}, d, {weighted, hidden, nullptr}, hidden, g.down.as<A>(), g.add_down);
    if (g.up_bias) bias_gradient({dz, full, nullptr}, full, nullptr, g.up_bias.as<A>(), g.add_up_bias);
    if (g.down_bias) bias_gradient({d_out, d, token.get()}, d, weight, g.down_bias.as<A>(), g.add_down_bias);
  }

 private:
  // dOut down, and from it in the same tile dz, the weighted activation and the gate weights' gradients.
  void slopes(const Item& item, const T* z, const T* d_out, T* dz, T* weighted, A* d_weights) const {
    Product<P> p;
    p.a = {d_out, d, token.get()};
    p.b = {f.down.template as<T>() + item.expert * d * hidden, hidden, nullptr};
    p.b_by_k = true;
    p.m = kept;
    p.n = hidden;
    p.k = d;
    const auto slope_of_tile = slope_tile_of<T>(f.activation);
    A* products = scratch_of<A>(0, (item.m1 - item.m0) * L);
    std::fill_n(products, (item.m1 - item.m0) * L, A(0));
    multiply<P>(p, item.m0, item.m1, 0, hidden, nullptr, 0, false, [&](int64_t m, int r, int64_t n, int64_t, const A* sums, int64_t stride) {
      slope_of_tile({z + m * full, dz + m * full, weighted + m * hidden, products + (m - item.m0) * L, weight + m, hidden, f.gated}, r, n, sums, stride);
    });
    if (!d_weights) return;
    const T* bias = f.down_bias ? f.down_bias.template as<T>() + item.expert * d : nullptr;
    for (int64_t m = item.m0; m < item.m1; ++m) {
      A sum = sum_lanes(load(products + (m - item.m0) * L));
      if (bias) {
        Vec<A> dot = Vec<A>::zero();
        const T* row = d_out + token[m] * d;
        for_vectors<A>(d, [&](int64_t j, int lanes) { dot = fma(load_count(row + j, lanes), load_count(bias + j, lanes), dot); });
        sum += sum_lanes(dot);
      }
      d_weights[f.rows.as<int32_t>()[m]] = sum;
    }
  }

  // dz up to dx_rows [kept, d].
  void input_rows(const Item& item, const T* dz, T* dx_rows) const {
    Product<P> p;
    p.a = {dz, full, nullptr};
    p.b = {f.up.template as<T>() + item.expert * full * d, d, nullptr};
    p.b_by_k = true;
    p.m = kept;
    p.n = d;
    p.k = full;
    multiply<P>(p, item.m0, item.m1, 0, d, nullptr, 0, false, [&](int64_t m, int r, int64_t n, int64_t count, const A* sums, int64_t stride) {
      for (int i = 0; i < r; ++i)
        for_vectors<A>(count, [&](int64_t j, int lanes) { store_count(dx_rows + (m + i) * d + n + j, load(sums + i * stride + j), lanes); });
    });
  }

  // out[e] (+)= left^T right over the rows of expert e, ascending; left [kept, m], right [kept, n], either gathered. Accumulator type.
  void weight_gradient(Matrix<T> left, int64_t m, Matrix<T> right, int64_t n, A* out, bool add) const {
    int64_t height = std::min<int64_t>(kPieceRows, (m + kTileRows - 1) / kTileRows * kTileRows), width = std::min<int64_t>(n, 12 * tile);
    const auto count = [&] { return experts * ((m + height - 1) / height) * ((n + width - 1) / width); };
    while (count() < 4 * thread_count() && (height > 4 * kTileRows || width > 2 * tile)) {
      if (height > 4 * kTileRows) height = (height / kTileRows + 1) / 2 * kTileRows;
      else width = (width / tile + 1) / 2 * tile;
    }
    std::vector<Item> items;
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t i = 0; i < m; i += height)
        for (int64_t j = 0; j < n; j += width) items.push_back({int32_t(e), i, std::min(m, i + height), j, std::min(n, j + width)});
    std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
      return offsets[a.expert + 1] - offsets[a.expert] > offsets[b.expert + 1] - offsets[b.expert];
    });
    const auto from = [&](Matrix<T> matrix, int64_t row) {
      if (matrix.index) matrix.index += row;
      else matrix.data += row * matrix.ld;
      return matrix;
    };
    for_items(items, [&](const Item& item) {
      Product<P> p;
      p.a = from(left, offsets[item.expert]);
      p.b = from(right, offsets[item.expert]);
      p.a_by_k = p.b_by_k = true;
      p.m = m;
      p.n = n;
      p.k = offsets[item.expert + 1] - offsets[item.expert];
      if (p.k == 0 && add) return;
      A* c = out + item.expert * m * n;
      multiply<P>(p, item.m0, item.m1, item.n0, item.n1, c, n, add, [&](int64_t i, int r, int64_t j, int64_t columns, const A* sums, int64_t stride) {
        if (columns == tile) return;
        for (int q = 0; q < r; ++q) std::copy_n(sums + q * stride, columns, c + (i + q) * n + j);
      });
    });
  }

  // out[e] (+)= sum over the rows of expert e of (weight *) row.
  void bias_gradient(const Matrix<T>& rows, int64_t n, const A* scale, A* out, bool add) const {
    constexpr int64_t kColumns = 256;
    const int64_t pieces = (n + kColumns - 1) / kColumns;
    parallel_for(experts * pieces, [&](int64_t item) {
      const int64_t e = item / pieces, j0 = item % pieces * kColumns, columns = std::min(n - j0, kColumns);
      A* sums = out + e * n + j0;
      if (!add) std::fill_n(sums, columns, A(0));
      for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
        const Vec<A> s(scale ? scale[r] : A(1));
        const T* row = rows.row(r) + j0;
        for_vectors<A>(columns, [&](int64_t j, int lanes) { store_count(sums + j, fma(s, load_count(row + j, lanes), load_count(sums + j, lanes)), lanes); });
      }
    });
  }

  const GroupedFfn& f;
  const int32_t* offsets;
  const int64_t experts, kept, top_k, d, hidden, full, packed;
  const Pooled<int32_t> token;        // of each kept row
  const Pooled<A> weight;
  const Pooled<int32_t> interleaved;  // packed column -> row of up
};

template <class F> void with_layer(const GroupedFfn& f, F&& body) {
  check_plan(f);
  with_float(f.x.dtype, [&]<class T>() { with_operand<T>([&]<class P>() { body(Layer<P>(f), T()); }); });
}

void forward(const GroupedFfn& f, const TensorView& z, const TensorView& out) {
  with_layer(f, [&]<class P, class T>(const Layer<P>& layer, T) { layer.forward(z.as<T>(), out.as<T>()); });
}
void backward(const GroupedFfn& f, const TensorView& z, const TensorView& d_out, const GroupedFfnGradients& g) {
  with_layer(f, [&]<class P, class T>(const Layer<P>& layer, T) { layer.backward(z.as<T>(), d_out.as<T>(), g); });
}

}  // namespace

extern const GroupedFfnOps grouped_ffn_ops;
const GroupedFfnOps grouped_ffn_ops = {forward, backward, cheap, cheap_backward};

}  // namespace libmoe::cpu::LIBMOE_ISA

// Forward 2 S d F + 2 S d f FLOPs (S kept slots, f hidden, F = f or 2 f), backward twice that. Bytes at least: weights once, x, out, and in training z once;
// the pipeline adds the activations [S, f] and the rows [S, d] before the combine, each written and read once. Launches: two for the plan, then forward up,
// down, combine; backward (up again,) slope, gate gradient, input, combine, two weight gradients. Every product shares its tiles among a persistent grid;
// row counts never leave the device, buffers are sized by T * k.
#include "ops/grouped_ffn.h"

#include "core/dispatch.h"
#include "cuda/core/row_sums.h"
#include "cuda/core/simt_product.h"

namespace libmoe::cuda {

// cheap_experts.cu
void cheap(const CheapExperts& e, const TensorView& out);
void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors);

namespace {

constexpr int kThreads = 256;

// out[t] = sum over the token's slots, ascending, of (weight *) y[inverse[slot]]. Bytes: the kept rows of y read once, out written once. `lanes` threads share
// a token, each moving N neighbouring columns at a time.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) combine_kernel(int64_t tokens, int top_k, int64_t d, int lanes, const T* y, const int32_t* inverse, const int32_t* kept,
                                                           const Accumulator<T>* weights, T* out) {
  using A = Accumulator<T>;
  const int lane = int(threadIdx.x) & (lanes - 1), per_block = kThreads / lanes, rows = *kept;
  const int64_t chunks = d / N;
  for (int64_t t = int64_t(blockIdx.x) * per_block + threadIdx.x / unsigned(lanes); t < tokens; t += int64_t(gridDim.x) * per_block)
    for (int64_t c = lane; c < chunks; c += lanes) {
      A sums[N] = {};
#pragma unroll 4
      for (int j = 0; j < top_k; ++j) {
        const int64_t slot = t * top_k + j;
        const int row = inverse[slot];
        if (row < 0 || row >= rows) continue;
        const Pack<T, N> p = *reinterpret_cast<const Pack<T, N>*>(y + row * d + c * N);
        const A w = weights ? weights[slot] : A(1);
#pragma unroll
        for (int i = 0; i < N; ++i) sums[i] = fma(w, load(p.at[i]), sums[i]);
      }
      Pack<T, N> p;
#pragma unroll
      for (int i = 0; i < N; ++i) p.at[i] = store<T>(sums[i]);
      *reinterpret_cast<Pack<T, N>*>(out + t * d + c * N) = p;
    }
}

// The gradient of each kept slot's gate weight: its parts in order, and <dOut, bias>. A warp per row.
template <class T>
__global__ void __launch_bounds__(kThreads) gate_gradient_kernel(ExpertRows<Accumulator<T>> rows, int pieces, const Accumulator<T>* parts, const T* d_out, const T* bias, int64_t d,
                                                                 Accumulator<T>* gradient) {
  using A = Accumulator<T>;
  const int lane = int(threadIdx.x) & 31;
  const int64_t kept = rows.offsets[rows.experts];
  for (int64_t r = int64_t(blockIdx.x) * (kThreads / 32) + (threadIdx.x >> 5); r < kept; r += int64_t(gridDim.x) * (kThreads / 32)) {
    A dot = 0;
    if (bias) {
      int low = 0, high = rows.experts - 1;  // the expert: the last that starts at or before row r, and has rows
      while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (rows.offsets[middle] <= r) low = middle;
        else high = middle - 1;
      }
      const T *g = d_out + rows.token[r] * d, *b = bias + low * d;
      for (int64_t i = lane; i < d; i += 32) dot = fma(load(g[i]), load(b[i]), dot);
      dot = warp_all<Sum>(dot);
    }
    if (lane != 0 || rows.slot[r] < 0) continue;
    A sum = 0;
    for (int j = 0; j < pieces; ++j) sum += parts[j * rows.slots + r];
    gradient[rows.slot[r]] = sum + dot;
  }
}

// The products of a layer in one element type.
template <class T> struct Products {
  const DeviceState& state;
  const ExpertRows<Accumulator<T>>& rows;
  template <class P> void operator()(const P& p) const {
    if constexpr (!std::is_same_v<T, bf16>) multiply_simt(state, shaped(rows, p));
    else if constexpr (std::is_same_v<P, UpProduct<T>>) tensor_core_ops(state).up(state, rows, p);
    else if constexpr (std::is_same_v<P, DownProduct<T>>) tensor_core_ops(state).down(state, rows, p);
    else if constexpr (std::is_same_v<P, SlopeProduct<T>>) tensor_core_ops(state).slope(state, rows, p);
    else if constexpr (std::is_same_v<P, InputProduct<T>>) tensor_core_ops(state).input(state, rows, p);
    else tensor_core_ops(state).weight(state, rows, p);
  }
};

// Tiles of 128 rows pay where experts have that many; below, rows of a tile that nobody has would cost as much as real ones.
int height_for(const GroupedFfn& f) {
  if (f.x.dtype != Dtype::bf16) return simt::kM;
  const int64_t each = f.rows.elements() / std::max<int64_t>(1, f.offsets.elements() - 1);
  return each > 96 ? 128 : each > 16 ? 64 : 16;
}

template <class T> class Layer {
 public:
  using A = Accumulator<T>;
  explicit Layer(const GroupedFfn& layer)
      : f(layer), state(state_of(f.x.device)), tokens(f.x.shape[0]), top_k(f.weights.shape[1]), d(f.x.shape[1]), width(f.down.shape[2]), full(f.gated ? 2 * width : width),
        slots(tokens * top_k),
        layout(state, {f.rows.as<const int32_t>(), f.offsets.as<const int32_t>(), f.inverse.as<const int32_t>(), tokens, top_k, int(f.offsets.elements() - 1)},
               f.weights.as<const A>(), height_for(f)),
        rows(layout.rows()), multiply{state, rows} {}

  void up(T* z, T* hidden) const {
    multiply(UpProduct<T>{f.x.as<const T>(), f.up.as<const T>(), f.up_bias.as<const T>(), z, hidden, d, width, f.gated, f.activation});
  }

  void combine(const T* y, const A* weights, T* out) const {
    constexpr int N = kPack<T>;
    const auto run = [&]<int M>() {
      int lanes = 1;
      while (lanes < kThreads && lanes < d / M) lanes *= 2;
      launch(state, combine_kernel<T, M>, grid_for(state, tokens, kThreads / lanes, 8), kThreads, 0, tokens, int(top_k), d, lanes, y, f.inverse.as<const int32_t>(),
             rows.offsets + rows.experts, weights, out);
    };
    if (d % N == 0 && aligned_to(y, 16) && aligned_to(out, 16)) run.template operator()<N>();
    else run.template operator()<1>();
  }

  void forward(T* z, T* out) const {
    const Scratch hidden(state, size_t(slots * width) * sizeof(T)), y(state, size_t(slots * d) * sizeof(T));
    up(z, hidden.as<T>());
    multiply(DownProduct<T>{hidden.as<T>(), f.down.as<const T>(), f.down_bias.as<const T>(), y.as<T>(), d, width});
    combine(y.as<T>(), f.weights.as<const A>(), out);
  }

  void backward(const T* z, const T* d_out, const GroupedFfnGradients& g) const {
    const int pieces = int(blocks_for(width, kSlopeColumns));
    const Scratch dz(state, size_t(slots * full) * sizeof(T)), weighted(state, size_t(slots * width) * sizeof(T)), parts(state, size_t(slots * pieces) * sizeof(A)),
        z_again(state, z ? 0 : size_t(slots * full) * sizeof(T));
    if (!z) up(z_again.as<T>(), nullptr);
    multiply(SlopeProduct<T>{d_out, f.down.as<const T>(), z ? z : z_again.as<T>(), dz.as<T>(), weighted.as<T>(), parts.as<A>(), d, width, f.gated, f.activation});
    if (g.weights) {
      if (slots) check(cudaMemsetAsync(g.weights.data, 0, size_t(slots) * sizeof(A), state.compute), "clearing memory");
      launch(state, gate_gradient_kernel<T>, grid_for(state, slots, kThreads / 32), kThreads, 0, rows, pieces, static_cast<const A*>(parts.as<A>()), d_out, f.down_bias.as<const T>(), d,
             g.weights.as<A>());
    }
    if (g.dx) {  // before the weights' gradients: the layer below waits for it
      const Scratch each(state, size_t(slots * d) * sizeof(T));
      multiply(InputProduct<T>{dz.as<T>(), f.up.as<const T>(), each.as<T>(), d, full});
      combine(each.as<T>(), nullptr, g.dx.as<T>());
    }
    if (g.up) multiply(WeightProduct<T>{dz.as<T>(), f.x.as<const T>(), false, true, g.up.as<A>(), full, d, g.add_up});
    if (g.down) multiply(WeightProduct<T>{d_out, weighted.as<T>(), true, false, g.down.as<A>(), d, width, g.add_down});
    if (g.up_bias) sum_rows<T>(state, {dz.as<T>(), full, nullptr, nullptr, rows.offsets, slots, g.up_bias.as<A>(), g.add_up_bias}, rows.experts);
    if (g.down_bias) sum_rows<T>(state, {d_out, d, rows.token, rows.weight, rows.offsets, slots, g.down_bias.as<A>(), g.add_down_bias}, rows.experts);
  }

 private:
  const GroupedFfn& f;
  DeviceState& state;
  const int64_t tokens, top_k, d, width, full, slots;
  const ExpertLayout<A> layout;
  const ExpertRows<A>& rows;
  const Products<T> multiply;
};

void forward(const GroupedFfn& f, const TensorView& z, const TensorView& out) {
  with_float(f.x.dtype, [&]<class T>() { Layer<T>(f).forward(z.as<T>(), out.as<T>()); });
}
void backward(const GroupedFfn& f, const TensorView& z, const TensorView& d_out, const GroupedFfnGradients& g) {
  with_float(f.x.dtype, [&]<class T>() { Layer<T>(f).backward(z.as<const T>(), d_out.as<const T>(), g); });
}

}  // namespace

extern const GroupedFfnOps grouped_ffn_ops;
const GroupedFfnOps grouped_ffn_ops = {forward, backward, cheap, cheap_backward};

}  // namespace libmoe::cuda

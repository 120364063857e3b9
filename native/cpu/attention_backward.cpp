// Backward attention. An item is (sequence, key head): it alone writes the gradients of that head's keys and values and of its queries, in one
// fixed order, recomputing the weights of a block from log_sum. Five products of 2 FLOP per (query, visible key, channel); keys, values and
// their gradients of one head and sequence stay in the second-level cache for sequences up to about a thousand tokens.
#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/simd/attention_sequences.h"
#include "cpu/simd/math.h"
#include "cpu/simd/row.h"

namespace libmoe::cpu::LIBMOE_ISA {

void attention_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
                        const TensorView& log_sum, const TensorView& d_out, const TensorView& dq, const TensorView& dk, const TensorView& dv,
                        const TensorView& d_sinks, bool add_sinks, const AttentionOptions& options);

namespace {

struct Tensors {
  const TensorView &q, &k, &v, &out, &log_sum, &d_out, &dq, &dk, &dv;
};

template <class A> struct Workspace {
  int64_t stride, value_stride, elements;
  A *keys, *values, *d_keys, *d_values;              // [key rows, stride]: the whole sequence
  A *queries, *d_outs;                               // [W, stride]: a block of columns as rows, queries scaled
  A *queries_t, *d_outs_t, *d_queries_t;             // [channels, W]: the same as columns
  A *weights, *d_scores;                             // [64, W]
  A *log_sums, *deltas;                              // [W]
  Workspace(const HeadShape& shape, int64_t key_rows, Pieces<A> pieces) : stride(row_stride<A>(shape.width)), value_stride(row_stride<A>(shape.value_width)) {
    constexpr int64_t W = kColumns<A>;
    keys = pieces.take(key_rows * stride);
    d_keys = pieces.take(key_rows * stride);
    values = pieces.take(key_rows * value_stride);
    d_values = pieces.take(key_rows * value_stride);
    queries = pieces.take(W * stride);
    d_outs = pieces.take(W * value_stride);
    queries_t = pieces.take(shape.width * W);
    d_queries_t = pieces.take(round_up(shape.width, 4) * W);
    d_outs_t = pieces.take(shape.value_width * W);
    weights = pieces.take(kKeyBlock * W);
    d_scores = pieces.take(kKeyBlock * W);
    log_sums = pieces.take(W);
    deltas = pieces.take(W);
    elements = pieces.taken();
  }
};

// Turns scores and products d_out.v of a block into weights p = exp(score - log sum) and score gradients p (d_out.v - delta).
template <int N, class A> void differentiate(const Workspace<A>& w, int64_t keys, const Sight<A>& sight, int64_t begin, bool whole) {
  using V = Vec<A>;
  constexpr int L = V::lanes;
  for (int n = 0; n < N; ++n) {
    const V log_sum = load(w.log_sums + n * L), delta = load(w.deltas + n * L);
    for (int64_t key = 0; key < keys; ++key) {
      A *weight = w.weights + (key * N + n) * L, *d_score = w.d_scores + (key * N + n) * L;
      V p = exp(load(weight) - log_sum);
      if (!whole) p = select<A>(sight.visible(begin + key, n * L), p, V::zero());
      store(weight, p);
      store(d_score, p * (load(d_score) - delta));
    }
  }
}

template <int N, class T, class A>
void columns_backward(const Tensors& t, const HeadShape& shape, const Sequence& s, int64_t head, int64_t column, int64_t count, const Workspace<A>& w,
                      const AttentionOptions& options) {
  constexpr int L = Vec<A>::lanes;
  constexpr int64_t W = N * L;
  const Sight<A> sight(s, shape, options, column, count);
  const A scale = A(options.scale);
  std::fill(w.queries_t, w.queries_t + shape.width * W, A(0));
  std::fill(w.d_outs_t, w.d_outs_t + shape.value_width * W, A(0));
  std::fill(w.d_queries_t, w.d_queries_t + round_up(shape.width, 4) * W, A(0));
  std::fill(w.log_sums, w.log_sums + W, A(0));
  std::fill(w.deltas, w.deltas + W, A(0));
  for (int64_t c = 0; c < count; ++c) {
    const int64_t row = shape.row_of(s, head, column + c);
    const T *query = t.q.as<T>() + row * shape.width, *o = t.out.as<T>() + row * shape.value_width, *g = t.d_out.as<T>() + row * shape.value_width;
    A *to = w.queries + c * w.stride, *g_to = w.d_outs + c * w.value_stride;
    std::fill(to + shape.width, to + w.stride, A(0));
    std::fill(g_to + shape.value_width, g_to + w.value_stride, A(0));
    for (int64_t d = 0; d < shape.width; ++d) to[d] = w.queries_t[d * W + c] = A(query[d]) * scale;
    for (int64_t d = 0; d < shape.value_width; ++d) g_to[d] = w.d_outs_t[d * W + c] = A(g[d]);
    w.log_sums[c] = t.log_sum.as<A>()[row];
    w.deltas[c] = row_sum<A>(shape.value_width, [&](int64_t i, int n) { return load_count(o + i, n) * load_count(g + i, n); });
  }

  for (int64_t begin = sight.first / kKeyBlock * kKeyBlock; begin <= sight.last; begin += kKeyBlock) {
    const int64_t seen = std::min(kKeyBlock, sight.last + 1 - begin), rows = round_up(seen, 4);
    const A *keys = w.keys + begin * w.stride, *values = w.values + begin * w.value_stride;
    product_columns<Begin::zero, N>(rows, Left<A>{keys, w.stride, 1}, w.queries_t, W, w.weights, W, shape.width);
    product_columns<Begin::zero, N>(rows, Left<A>{values, w.value_stride, 1}, w.d_outs_t, W, w.d_scores, W, shape.value_width);
    differentiate<N>(w, rows, sight, begin, sight.whole(begin, begin + rows));
    product_columns<Begin::at_c, N>(round_up(shape.width, 4), Left<A>{keys, 1, w.stride}, w.d_scores, W, w.d_queries_t, W, rows);
    add_product(rows, round_up(shape.value_width, L) / L, Left<A>{w.weights, W, 1}, w.d_outs, w.value_stride, w.d_values + begin * w.value_stride, w.value_stride, count);
    add_product(rows, round_up(shape.width, L) / L, Left<A>{w.d_scores, W, 1}, w.queries, w.stride, w.d_keys + begin * w.stride, w.stride, count);
  }
  for (int64_t c = 0; c < count; ++c) {
    T* to = t.dq.as<T>() + shape.row_of(s, head, column + c) * shape.width;
    for (int64_t d = 0; d < shape.width; ++d) to[d] = T(w.d_queries_t[d * W + c] * scale);
  }
}

// The sink of a head has the value 0, so its score gradient in a row is -weight * delta; tokens are added in a fixed order.
template <class T, class A = Accumulator<T>> void sinks_backward(const Tensors& t, const HeadShape& shape, const TensorView& sinks, const TensorView& d_sinks, bool add) {
  constexpr int L = Vec<A>::lanes;
  const int64_t tokens = t.q.shape[0];
  parallel_for(shape.query_heads, [&](int64_t head) {
    const Vec<A> sink(A(sinks.as<T>()[head]));
    alignas(64) A log_sums[L], deltas[L];
    Vec<A> sum = Vec<A>::zero();
    for (int64_t begin = 0; begin < tokens; begin += L) {
      std::fill(log_sums, log_sums + L, A(__builtin_inf()));  // lanes without a token: exp(-inf) is 0
      std::fill(deltas, deltas + L, A(0));
      for (int64_t i = 0; i < std::min<int64_t>(L, tokens - begin); ++i) {
        const int64_t row = (begin + i) * shape.query_heads + head;
        const T *o = t.out.as<T>() + row * shape.value_width, *g = t.d_out.as<T>() + row * shape.value_width;
        log_sums[i] = t.log_sum.as<A>()[row];
        deltas[i] = row_sum<A>(shape.value_width, [&](int64_t j, int n) { return load_count(o + j, n) * load_count(g + j, n); });
      }
      sum = fma(exp(sink - load(log_sums)), load(deltas), sum);
    }
    A& to = d_sinks.as<A>()[head];
    to = (add ? to : A(0)) - sum_lanes(sum);
  });
}

template <class T, class A> void store_rows(const A* from, int64_t stride, const TensorView& to, const Sequence& s, int64_t head) {
  const int64_t width = to.shape[2];
  for (int64_t r = 0; r < s.keys; ++r) {
    T* row = to.as<T>() + ((s.first_row + r) * to.shape[1] + head) * width;
    for_vectors<A>(width, [&](int64_t i, int n) { store_count(row + i, load(from + r * stride + i), n); });
  }
}

}  // namespace

void attention_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
                        const TensorView& log_sum, const TensorView& d_out, const TensorView& dq, const TensorView& dk, const TensorView& dv,
                        const TensorView& d_sinks, bool add_sinks, const AttentionOptions& options) {
  const std::vector<Sequence> sequences = sequences_of(offsets, q.shape[0]);
  const HeadShape shape(q, k.shape[1], v.shape[2]);
  const Tensors t{q, k, v, out, log_sum, d_out, dq, dk, dv};
  with_float(q.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    constexpr int L = Vec<A>::lanes;
    parallel_for(int64_t(sequences.size()) * shape.heads, [&](int64_t item) {
      const Sequence& s = sequences[size_t(item / shape.heads)];
      const int64_t head = item % shape.heads, key_rows = round_up(s.keys, 4), columns = s.queries * shape.group;
      const int64_t elements = Workspace<A>(shape, key_rows, Pieces<A>()).elements;
      const Workspace<A> w(shape, key_rows, Pieces<A>(scratch_of<A>(0, elements)));
      load_rows(PackedRows<T>(k, s, head), 0, s.keys, key_rows, shape.width, w.keys, w.stride);
      load_rows(PackedRows<T>(v, s, head), 0, s.keys, key_rows, shape.value_width, w.values, w.value_stride);
      std::fill(w.d_keys, w.d_keys + key_rows * w.stride, A(0));
      std::fill(w.d_values, w.d_values + key_rows * w.value_stride, A(0));
      for (int64_t c = 0; c < columns; c += kColumns<A>) {
        const int64_t count = std::min(kColumns<A>, columns - c);
        if (count <= L) columns_backward<1, T>(t, shape, s, head, c, count, w, options);
        else if (kTileVectors == 2 || count <= 2 * L) columns_backward<2, T>(t, shape, s, head, c, count, w, options);
        else columns_backward<kTileVectors, T>(t, shape, s, head, c, count, w, options);
      }
      store_rows<T>(w.d_keys, w.stride, dk, s, head);
      store_rows<T>(w.d_values, w.value_stride, dv, s, head);
    });
    if (d_sinks) sinks_backward<T>(t, shape, sinks, d_sinks, add_sinks);
  });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

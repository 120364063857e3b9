// Backward attention on plain cores, without atomics: one kernel per side. A block that keeps 16 columns walks over their keys and gives dq (three products of
// 2 FLOP per column, visible key and channel); one that keeps 16 keys walks over the columns that see them, the query heads of a key head in order, and gives dk
// and dv (four products). Weights are computed again from log_sum.
#include "core/dispatch.h"
#include "cuda/core/attention_simt.h"

namespace libmoe::cuda::simt {
namespace {

// kKeys: a block keeps keys and values, and streams queries and gradients of outputs.
template <bool kKeys, class T, class A = Accumulator<T>>
__global__ void __launch_bounds__(kThreads, 4) backward_kernel(AttentionCall call, const T* q, const T* k, const T* v, const T* d_out, const A* log_sum, const A* delta,
                                                               T* d_first, T* d_second) {
  AttentionTile tile;
  if (!find_tile<!kKeys>(call, kKeys ? 1 : call.group, kOwn, tile)) return;
  A* chunk = dynamic_shared<A>();                            // [64, 33]
  A* weights = chunk + kStream * (kChunk + 1);               // [16, 65]
  A* d_scores = weights + kOwn * kWeightStride;              // [16, 65]
  A* first = d_scores + kOwn * kWeightStride;                // [16, width + 1]: keys or queries
  A* second = first + kOwn * row_stride(call.width);         // [16, value width + 1]: values or gradients of outputs
  A* first_sums = second + kOwn * row_stride(call.value_width);
  A* second_sums = first_sums + kOwn * row_stride(call.width);  // of keys alone
  const AttentionSequence& s = tile.sequence;
  const int r = int(threadIdx.x) / kLanes, lane = int(threadIdx.x) % kLanes;
  const int mine = tile.begin + r, end = kKeys ? s.keys : s.queries * call.group;
  const bool real = mine < end;
  const A scale = A(call.scale);
  const auto row_of = [&](int i, bool key) { return key ? key_row(call, tile, i) : column_row(call, tile, i); };
  const int64_t row = row_of(real ? mine : tile.begin, kKeys);
  keep(first, call.width, A(1), [&](int) { return real ? (kKeys ? k : q) + row * call.width : nullptr; });
  keep(second, call.value_width, A(1), [&](int) { return real ? (kKeys ? v : d_out) + row * call.value_width : nullptr; });
  clear(first_sums, call.width);
  if (kKeys) clear(second_sums, call.value_width);

  Columns range;
  if constexpr (kKeys) {
    range = columns_of(call, s, tile.begin, min(tile.begin + kOwn, end));
  } else {
    const Sight all = sight_of(call, s, tile.begin, min(tile.begin + kOwn, end));
    range = {all.first, all.last};
  }
  for (int begin = range.first / kStream * kStream; begin <= range.last; begin += kStream) {
    const auto rows = [&](const T* base, int width) {
      return [=, &tile, &call](int j) -> const T* {
        const int i = begin + j;
        return i < range.first || i > range.last ? nullptr : base + row_of(i, !kKeys) * width;
      };
    };
    A x[kScores], y[kScores];
    scores_of(x, first, call.width, chunk, rows(kKeys ? q : k, call.width));
    scores_of(y, second, call.value_width, chunk, rows(kKeys ? d_out : v, call.value_width));
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const int other = begin + lane + i * kLanes, column = kKeys ? other : mine, key = kKeys ? mine : other;
      A weight = A(0), d_score = A(0);
      if (real && other >= range.first && other <= range.last && sight_of(call, s, column).sees(key)) {
        const int64_t at = column_row(call, tile, column);
        weight = exp(fma(x[i], scale, -log_sum[at]));
        d_score = weight * (y[i] - delta[at]);
      }
      weights[r * kWeightStride + lane + i * kLanes] = weight;
      d_scores[r * kWeightStride + lane + i * kLanes] = d_score;
    }
    add_weighted(first_sums, A(1), d_scores, call.width, chunk, rows(kKeys ? q : k, call.width));
    if constexpr (kKeys) add_weighted(second_sums, A(1), weights, call.value_width, chunk, rows(d_out, call.value_width));
  }

  if (!real) return;
  for (int d = lane; d < call.width; d += kLanes) d_first[row * call.width + d] = store<T>(first_sums[r * row_stride(call.width) + d] * scale);
  if constexpr (kKeys)
    for (int d = lane; d < call.value_width; d += kLanes) d_second[row * call.value_width + d] = store<T>(second_sums[r * row_stride(call.value_width) + d]);
}

}  // namespace

void backward(const DeviceState& state, Dtype dtype, const AttentionCall& call, const AttentionGradients& t) {
  with_float(dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const size_t bytes = chunk_bytes<A>() + 2 * weight_bytes<A>() + 2 * sizeof(A) * kOwn * size_t(row_stride(call.width) + row_stride(call.value_width));
    require_shared(state, bytes, call);
    const auto run = [&](auto* kernel, int rows, void* d_first, void* d_second) {
      launch(state, kernel, attention_grid(call, rows, kOwn), kThreads, bytes, call, static_cast<const T*>(t.q), static_cast<const T*>(t.k), static_cast<const T*>(t.v),
             static_cast<const T*>(t.d_out), static_cast<const A*>(t.log_sum), static_cast<const A*>(t.delta), static_cast<T*>(d_first), static_cast<T*>(d_second));
    };
    run(backward_kernel<false, T, A>, call.group, t.dq, nullptr);
    run(backward_kernel<true, T, A>, 1, t.dk, t.dv);
  });
}

}  // namespace libmoe::cuda::simt

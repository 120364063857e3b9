// Forward attention on plain cores. 2 (width + value width) FLOP per column and visible key, rounded up to tiles of 64 keys, at the rate of f32 (or f64) cores;
// keys and values are read once per 16 columns, from the second-level cache mostly. One block per (16 columns, key head); tensor cores take bf16 (cuda/sm80/).
#include "core/dispatch.h"
#include "cuda/core/attention_simt.h"

namespace libmoe::cuda::simt {
namespace {

template <class T, class A = Accumulator<T>>
__global__ void __launch_bounds__(kThreads, 4) forward_kernel(AttentionCall call, const T* q, const T* k, const T* v, const T* sinks, T* out, A* log_sum) {
  AttentionTile tile;
  if (!find_tile<true>(call, call.group, kOwn, tile)) return;
  A* chunk = dynamic_shared<A>();                            // [64, 33]
  A* weights = chunk + kStream * (kChunk + 1);               // [16, 65]
  A* queries = weights + kOwn * kWeightStride;               // [16, width + 1], scaled
  A* sums = queries + kOwn * row_stride(call.width);         // [16, value width + 1]
  const AttentionSequence& s = tile.sequence;
  const int r = int(threadIdx.x) / kLanes, lane = int(threadIdx.x) % kLanes;
  const int columns = s.queries * call.group, column = tile.begin + r;
  const bool real = column < columns;
  const int64_t row = column_row(call, tile, column);
  const Sight mine = sight_of(call, s, real ? column : columns - 1), all = sight_of(call, s, tile.begin, min(tile.begin + kOwn, columns));
  keep(queries, call.width, A(call.scale), [&](int) { return real ? q + row * call.width : nullptr; });
  clear(sums, call.value_width);
  A top = A(-INFINITY), total = A(0);
  if (sinks) {  // as if it had been the first key
    top = A(load(sinks[tile.head * call.group + column % call.group]));
    total = A(1);
  }

  for (int begin = all.first / kKeyTile * kKeyTile; begin <= all.last; begin += kKeyTile) {
    // Positions before the window are never read: their pages may be gone.
    const auto rows = [&](const T* base, int width) {
      return [=, &tile, &call](int j) -> const T* {
        if (!all.sees(begin + j)) return nullptr;
        const int64_t at = key_row(call, tile, begin + j);
        return at < 0 ? nullptr : base + at * width;
      };
    };
    A x[kScores];
    scores_of(x, queries, call.width, chunk, rows(k, call.width));
    A highest = top;
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      if (!mine.sees(begin + lane + i * kLanes)) x[i] = A(-INFINITY);
      highest = Max()(highest, x[i]);
    }
    highest = row_all<Max>(highest);
    // A column that has seen no key yet: nothing to shift by, and exp(-inf) is 0 as it must be.
    const A shift = highest == A(-INFINITY) ? A(0) : highest, factor = exp(top - shift);
    A sum = A(0);
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const A e = exp(x[i] - shift);
      weights[r * kWeightStride + lane + i * kLanes] = e;
      sum += e;
    }
    total = total * factor + row_all<Sum>(sum);
    top = highest;
    add_weighted(sums, factor, weights, call.value_width, chunk, rows(v, call.value_width));
  }

  if (!real) return;
  // + 0 turns a -0 into 0: whether a sum became -0 or 0 may depend on zeros that were added.
  const A share = A(1) / total;
  for (int d = lane; d < call.value_width; d += kLanes) out[row * call.value_width + d] = store<T>(fma(sums[r * row_stride(call.value_width) + d], share, A(0)));
  if (log_sum && lane == 0) log_sum[row] = top + log(total);
}

}  // namespace

void forward(const DeviceState& state, Dtype dtype, const AttentionCall& call, const AttentionTensors& t) {
  with_float(dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const size_t bytes = chunk_bytes<A>() + weight_bytes<A>() + sizeof(A) * kOwn * size_t(row_stride(call.width) + row_stride(call.value_width));
    require_shared(state, bytes, call);
    launch(state, forward_kernel<T>, attention_grid(call, call.group, kOwn), kThreads, bytes, call, static_cast<const T*>(t.q), static_cast<const T*>(t.k),
           static_cast<const T*>(t.v), static_cast<const T*>(t.sinks), static_cast<T*>(t.out), static_cast<A*>(t.log_sum));
  });
}

}  // namespace libmoe::cuda::simt

#pragma once
// y[key, :] (+)= the sum over the positions of a key, ascending, of x[position, :]. Bound by memory: x is read once, and each named row of y is written once.
// One warp owns a row of y in a tile of columns; of a key with many positions it has eight rows of x under way at a time.
#include "cuda/core/block.h"
#include "cuda/core/convert.h"
#include "cuda/core/row_index.h"

namespace libmoe::cuda {

enum class RowSum { onto, add, overwrite };  // onto: what y holds is the first term; add: y + (sum of the terms); overwrite: the sum

constexpr int kRowSumThreads = 256;

template <int P, class T, class Y>
__global__ void __launch_bounds__(kRowSumThreads, 2) row_sum_kernel(const uint32_t* keys, const int32_t* positions, int64_t n, int64_t rows, int64_t width,
                                                                    const T* x, Y* y, RowSum mode) {
  using A = Accumulator<T>;
  constexpr int kAhead = 8;
  const unsigned lane = threadIdx.x & 31u;
  const int64_t tiles = (width + 32 * P - 1) / (32 * P), warps = int64_t(gridDim.x) * (kRowSumThreads / 32);
  for (int64_t item = (int64_t(blockIdx.x) * kRowSumThreads + threadIdx.x) / 32; item < n * tiles; item += warps) {
    const int64_t first = item / tiles, column = (item % tiles * 32 + lane) * P;
    const uint32_t key = keys[first];
    if (key >= rows || (first > 0 && keys[first - 1] == key)) continue;  // the warp at the key's first position owns it
    const bool inside = column < width;
    const T* in = x + (inside ? column : 0);
    Y* out = y + int64_t(key) * width + column;
    A sum[P];
#pragma unroll
    for (int j = 0; j < P; ++j) sum[j] = A(0);
    if (inside && mode == RowSum::onto) {
      const auto old = *reinterpret_cast<const Pack<Y, P>*>(out);
#pragma unroll
      for (int j = 0; j < P; ++j) sum[j] = load(old.at[j]);
    }
    for (int64_t begin = first; begin < n; begin += 32) {
      const int64_t i = begin + lane;
      const bool same = i < n && keys[i] == key;
      const int32_t position = same ? positions[i] : 0;
      const int count = __popc(__ballot_sync(kFullWarp, same));  // sorted: they are the first lanes
      int t = 0;
      for (; t + kAhead <= count; t += kAhead) {
        Pack<T, P> ahead[kAhead];
#pragma unroll
        for (int k = 0; k < kAhead; ++k) ahead[k] = *reinterpret_cast<const Pack<T, P>*>(in + __shfl_sync(kFullWarp, position, t + k) * width);
#pragma unroll
        for (int k = 0; k < kAhead; ++k)
#pragma unroll
          for (int j = 0; j < P; ++j) sum[j] += load(ahead[k].at[j]);
      }
#pragma unroll 1
      for (; t < count; ++t) {
        const auto one = *reinterpret_cast<const Pack<T, P>*>(in + __shfl_sync(kFullWarp, position, t) * width);
#pragma unroll
        for (int j = 0; j < P; ++j) sum[j] += load(one.at[j]);
      }
      if (count < 32) break;
    }
    if (!inside) continue;
    Pack<Y, P> result;
    if (mode == RowSum::add) result = *reinterpret_cast<const Pack<Y, P>*>(out);
#pragma unroll
    for (int j = 0; j < P; ++j) result.at[j] = store<Y>(mode == RowSum::add ? A(load(result.at[j])) + sum[j] : sum[j]);
    *reinterpret_cast<Pack<Y, P>*>(out) = result;
  }
}

// x [n, width], y [rows, width], index [n]; an index outside the rows is reported as `what` and its row of x left out.
template <class T, class Y>
void sum_rows(DeviceState& state, const int32_t* index, int64_t n, int64_t rows, int64_t width, const T* x, Y* y, RowSum mode, const char* what) {
  const SortedPositions sorted(state, index, n, rows, fault_slot(state, {"ERR_LIBMOE_ARGUMENT", what, 0, rows - 1}));
  const auto run = [&]<int P>() {
    const int64_t tiles = blocks_for(width, 32 * P);
    launch(state, row_sum_kernel<P, T, Y>, grid_for(state, n * tiles, kRowSumThreads / 32), kRowSumThreads, 0, sorted.keys(), sorted.positions(), n, rows,
           width, x, y, mode);
  };
  constexpr int P = kPack<T>;
  if (width % P == 0 && aligned_to(x, 16) && aligned_to(y, 16)) run.template operator()<P>();
  else run.template operator()<1>();
}

}  // namespace libmoe::cuda

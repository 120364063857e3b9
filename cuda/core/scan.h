#pragma once
// Running sums of integers over a warp and over a block.
#include "cuda/core/block.h"

namespace libmoe::cuda {

// The sum over the lanes before this one.
template <class T> __device__ inline T warp_exclusive(T x) {
  const int lane = int(threadIdx.x & 31u);
  T sum = x;
#pragma unroll
  for (int by = 1; by < 32; by <<= 1) {
    const T before = __shfl_up_sync(kFullWarp, sum, unsigned(by));
    if (lane >= by) sum += before;
  }
  return sum - x;
}

// The sum over the threads before this one; `total` becomes that over all. All threads of the block take part; may be called again at once.
template <int kThreads, class T> __device__ inline T block_exclusive(T x, T& total) {
  constexpr int kWarps = kThreads / 32;
  __shared__ T warps[kWarps];
  const T before = warp_exclusive(x);
  __syncthreads();
  if ((threadIdx.x & 31u) == 31) warps[threadIdx.x >> 5] = before + x;
  __syncthreads();
  T base = 0;
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w == int(threadIdx.x >> 5)) base = total;
    total += warps[w];
  }
  return base + before;
}

}  // namespace libmoe::cuda

#pragma once
// Sums and maxima over a warp and over a block, in an order that depends on the number of threads alone.
#include <cuda_runtime.h>

namespace libmoe::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

struct Sum {
  template <class T> __device__ T operator()(T a, T b) const { return a + b; }
  template <class T> static __device__ T identity() { return T(0); }
};
// A NaN wins.
struct Max {
  template <class T> __device__ T operator()(T a, T b) const { return a != a || a > b ? a : b; }
  template <class T> static __device__ T identity() { return T(-INFINITY); }
};

// Every lane gets the result.
template <class F, class T> __device__ inline T warp_all(T x, F f = {}) {
#pragma unroll
  for (int bits = 16; bits > 0; bits >>= 1) x = f(x, __shfl_xor_sync(kFullWarp, x, bits));
  return x;
}

// Every thread gets the result. kThreads: a multiple of 32, at most 1024. All threads of the block take part; may be called again at once.
template <int kThreads, class F, class T> __device__ inline T block_all(T x, F f = {}) {
  constexpr int kWarps = kThreads / 32;
  __shared__ T parts[kWarps];
  x = warp_all<F>(x, f);
  if constexpr (kWarps == 1) return x;
  __syncthreads();
  if ((threadIdx.x & 31u) == 0) parts[threadIdx.x >> 5] = x;
  __syncthreads();
  T total = parts[0];
  for (int w = 1; w < kWarps; ++w) total = f(total, parts[w]);
  return total;
}

}  // namespace libmoe::cuda

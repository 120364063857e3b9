#pragma once
// Loops over equal-sized tensors, bound by memory: every thread moves 16 bytes of the widest operand at a time where addresses allow it, and the grid strides.
#include "cuda/core/convert.h"
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

constexpr int kElementThreads = 256;

// f(values of the inputs at i) gives the output at i. `packs` of N elements are moved whole; the rest, and all where an address is not aligned, one by one.
template <int N, class Y, class F, class... X> __global__ void __launch_bounds__(kElementThreads) map_kernel(int64_t n, int64_t packs, F f, Y* y, const X*... x) {
  const int64_t stride = int64_t(gridDim.x) * kElementThreads, first = int64_t(blockIdx.x) * kElementThreads + threadIdx.x;
  if constexpr (N > 1) {
    for (int64_t p = first; p < packs; p += stride) {
      Pack<Y, N> out;
      [&](const Pack<X, N>&... in) {
#pragma unroll
        for (int j = 0; j < N; ++j) out.at[j] = f(in.at[j]...);
      }(reinterpret_cast<const Pack<X, N>*>(x)[p]...);
      reinterpret_cast<Pack<Y, N>*>(y)[p] = out;
    }
  }
#pragma unroll 1
  for (int64_t i = packs * N + first; i < n; i += stride) y[i] = f(x[i]...);
}

// y[i] = f(x[i]...) with f from stored elements to a stored element. y may be one of x.
template <class Y, class F, class... X> void map(const DeviceState& state, int64_t n, F f, Y* y, const X*... x) {
  constexpr size_t kSmallest = std::min({sizeof(Y), sizeof(X)...});
  constexpr int N = kSmallest >= 8 ? 1 : kSmallest >= 4 ? 4 : 8;
  const bool aligned = aligned_to(y, alignof(Pack<Y, N>)) && (... && aligned_to(x, alignof(Pack<X, N>)));
  launch(state, map_kernel<N, Y, F, X...>, grid_for(state, n, int64_t(kElementThreads) * N, 8), kElementThreads, 0, n, aligned && N > 1 ? n / N : 0, f, y, x...);
}

}  // namespace libmoe::cuda

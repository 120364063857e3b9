#pragma once
// Element types on the device: bf16 and f16 round to nearest even, in hardware.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "cuda/core/ptx.h"

namespace libmoe::cuda {

__device__ inline float load(const float& x) { return x; }
__device__ inline double load(const double& x) { return x; }
__device__ inline float load(const bf16& x) { return __uint_as_float(unsigned(x.bits) << 16); }

template <class T, class A> __device__ inline T store(A x) {
  if constexpr (std::is_same_v<T, bf16>) {
    bf16 y;
    y.bits = ptx::bf16_bits(float(x));
    return y;
  } else {
    return T(x);
  }
}

// N neighbouring elements, moved by one instruction where `aligned`.
template <class T, int N> struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) Pack {
  T at[N];
};
template <class T> constexpr int kPack = int(16 / sizeof(T));  // 16 bytes

inline bool aligned_to(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

}  // namespace libmoe::cuda

#pragma once
// Warp operations and the other intrinsics of device code, with the meaning that the CUDA programming guide gives them.
#include <math.h>  // also exp(float) and its like, as nvcc has them

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "fibers.h"

namespace emulator {

template <class T> struct Exchange {
  T value;
  int source;
  int width;
  T result;
};

template <class T> inline T shuffle(const char* kind, unsigned mask, T value, int source, int width) {
  Exchange<T> mine{value, source, width, value};
  collective(kind, mask, &mine, [](void* const p[32], uint32_t m) {
    for (int lane = 0; lane < 32; ++lane) {
      if (!(m >> lane & 1u)) continue;
      auto* e = static_cast<Exchange<T>*>(p[lane]);
      if (e->source < 0) continue;
      if (!(m >> e->source & 1u)) continue;  // undefined on a GPU; keeps its own value here
      e->result = static_cast<Exchange<T>*>(p[e->source])->value;
    }
  });
  return mine.result;
}

}  // namespace emulator

template <class T> inline T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  const int lane = int(emulator::current->lane()), base = lane / width * width;
  return emulator::shuffle("shfl", mask, v, base + (source & (width - 1)), width);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
  const int lane = int(emulator::current->lane()), to = lane ^ bits;
  return emulator::shuffle("shfl.bfly", mask, v, to / width == lane / width ? to : -1, width);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const int lane = int(emulator::current->lane()), to = lane + int(delta);
  return emulator::shuffle("shfl.down", mask, v, to / width == lane / width ? to : -1, width);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const int lane = int(emulator::current->lane()), to = lane - int(delta), base = lane / width * width;
  return emulator::shuffle("shfl.up", mask, v, to >= base ? to : -1, width);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  emulator::Exchange<int> mine{predicate, 0, 0, 0};
  emulator::collective("vote", mask, &mine, [](void* const p[32], uint32_t m) {
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane)
      if ((m >> lane & 1u) && static_cast<emulator::Exchange<int>*>(p[lane])->value) bits |= 1u << lane;
    for (int lane = 0; lane < 32; ++lane)
      if (m >> lane & 1u) static_cast<emulator::Exchange<int>*>(p[lane])->result = int(bits);
  });
  return unsigned(mine.result);
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T> inline unsigned __match_any_sync(unsigned mask, T value) {
  struct Match {
    T value;
    unsigned result;
  } mine{value, 0};
  emulator::collective("match", mask, &mine, [](void* const p[32], uint32_t m) {
    for (int i = 0; i < 32; ++i) {
      if (!(m >> i & 1u)) continue;
      unsigned bits = 0;
      for (int j = 0; j < 32; ++j)
        if ((m >> j & 1u) && static_cast<Match*>(p[j])->value == static_cast<Match*>(p[i])->value) bits |= 1u << j;
      static_cast<Match*>(p[i])->result = bits;
    }
  });
  return mine.result;
}
template <class F> inline unsigned emulated_reduce(unsigned mask, unsigned value, F) {
  emulator::Exchange<unsigned> mine{value, 0, 0, 0};
  emulator::collective("redux", mask, &mine, [](void* const p[32], uint32_t m) {
    bool first = true;
    unsigned all = 0;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(m >> lane & 1u)) continue;
      const unsigned x = static_cast<emulator::Exchange<unsigned>*>(p[lane])->value;
      all = first ? x : F{}(all, x);
      first = false;
    }
    for (int lane = 0; lane < 32; ++lane)
      if (m >> lane & 1u) static_cast<emulator::Exchange<unsigned>*>(p[lane])->result = all;
  });
  return mine.result;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned x) {
  return emulated_reduce(mask, x, [](unsigned a, unsigned b) { return a > b ? a : b; });
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::collective("syncwarp", mask, nullptr, [](void* const*, uint32_t) {});
}
inline void __syncthreads() { emulator::barrier(0, 0); }
inline int __syncthreads_or(int predicate) {
  static int any;  // one block runs at a time
  emulator::barrier(0, 0);
  any = 0;
  emulator::barrier(0, 0);
  any |= predicate;
  emulator::barrier(0, 0);
  return any;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T> inline T __ldg(const T* p) { return *p; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= (x >> i & 1u) << (31 - i);
  return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline void sincospi(double x, double* sine, double* cosine) {
  *sine = std::sin(x * 3.14159265358979323846);
  *cosine = std::cos(x * 3.14159265358979323846);
}
inline void sincospif(float x, float* sine, float* cosine) {
  double s, c;
  sincospi(double(x), &s, &c);
  *sine = float(s);
  *cosine = float(c);
}
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }

using std::isfinite;
using std::isinf;
using std::isnan;

#define LIBMOE_EMULATED_MINMAX(T)                      \
  inline T min(T a, T b) { return b < a ? b : a; }     \
  inline T max(T a, T b) { return a < b ? b : a; }
LIBMOE_EMULATED_MINMAX(int)
LIBMOE_EMULATED_MINMAX(unsigned)
LIBMOE_EMULATED_MINMAX(long)
LIBMOE_EMULATED_MINMAX(unsigned long)
LIBMOE_EMULATED_MINMAX(long long)
LIBMOE_EMULATED_MINMAX(unsigned long long)
#undef LIBMOE_EMULATED_MINMAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

// One thread runs at a time, so that plain code is atomic.
template <class T> inline T atomicAdd(T* p, T v) {
  const T old = *p;
  *p = T(old + v);
  return old;
}
template <class T> inline T atomicMin(T* p, T v) {
  const T old = *p;
  if (v < old) *p = v;
  return old;
}
template <class T> inline T atomicMax(T* p, T v) {
  const T old = *p;
  if (old < v) *p = v;
  return old;
}
template <class T> inline T atomicOr(T* p, T v) {
  const T old = *p;
  *p = old | v;
  return old;
}
template <class T> inline T atomicExch(T* p, T v) {
  const T old = *p;
  *p = v;
  return old;
}
template <class T> inline T atomicCAS(T* p, T expected, T v) {
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}

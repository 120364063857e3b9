#pragma once
// Vec<T>: as many lanes of float or double as one register of the instruction set holds, with the few operations that the kernels need.
// Everything in cpu/ is written against it (or as plain loops) and compiled once per instruction set.
//
// Rules that keep results independent of position, neighbours and length:
//  * a tail is processed as a full vector: load_partial fills the rest, store_partial drops it; never by different scalar code;
//  * transcendental functions are the polynomials in simd/math.h, never libm;
//  * fma() is explicit; the compiler fuses nothing by itself (-ffp-contract=off);
//  * a reduction uses a fixed number of lanes and combines them in a fixed order (sum_lanes).
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "core/dtype.h"

namespace libmoe::cpu::LIBMOE_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

// Spelled out per type: g++ 12 drops the attribute on a typedef that depends on a template parameter.
template <class T> struct RawOf;
template <> struct RawOf<float> {
  using Int = int32_t;
  typedef float Raw __attribute__((vector_size(kVectorBytes)));
  typedef int32_t RawInt __attribute__((vector_size(kVectorBytes)));
};
template <> struct RawOf<double> {
  using Int = int64_t;
  typedef double Raw __attribute__((vector_size(kVectorBytes)));
  typedef int64_t RawInt __attribute__((vector_size(kVectorBytes)));
};

template <class T> struct Vec {
  static constexpr int lanes = kVectorBytes / int(sizeof(T));
  using Int = typename RawOf<T>::Int;
  using Raw = typename RawOf<T>::Raw;
  using RawInt = typename RawOf<T>::RawInt;
  Raw v;

  Vec() = default;
  Vec(Raw raw) : v(raw) {}
  explicit Vec(T x) : v(x - (Raw){}) {}
  static Vec zero() { return Vec((Raw){}); }

  friend Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  friend Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend Vec operator/(Vec a, Vec b) { return a.v / b.v; }
  friend Vec operator-(Vec a) { return -a.v; }
  Vec& operator+=(Vec b) { v += b.v; return *this; }
  Vec& operator*=(Vec b) { v *= b.v; return *this; }
  // Lane-wise a < b etc. as all-ones / zero masks, for select().
  friend RawInt operator<(Vec a, Vec b) { return a.v < b.v; }
  friend RawInt operator>(Vec a, Vec b) { return a.v > b.v; }
  friend RawInt operator==(Vec a, Vec b) { return a.v == b.v; }
};

template <class T> inline Vec<T> select(typename Vec<T>::RawInt mask, Vec<T> yes, Vec<T> no) { return mask ? yes.v : no.v; }
template <class T> inline Vec<T> max(Vec<T> a, Vec<T> b) { return select<T>(a.v > b.v, a, b); }
template <class T> inline Vec<T> min(Vec<T> a, Vec<T> b) { return select<T>(a.v < b.v, a, b); }
template <class T> inline Vec<T> abs(Vec<T> a) { return select<T>(a.v < (typename Vec<T>::Raw){}, -a, a); }

// a*b + c, fused where the instruction set can, else two roundings.
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return (Vec<float>::Raw)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v);
#elif defined(__FMA__)
  return (Vec<float>::Raw)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v);
#else
  return a * b + c;
#endif
}
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
  return (Vec<double>::Raw)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v);
#elif defined(__FMA__)
  return (Vec<double>::Raw)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v);
#else
  return a * b + c;
#endif
}

template <class T> inline Vec<T> sqrt(Vec<T> a) {
  Vec<T> r;
  for (int i = 0; i < Vec<T>::lanes; ++i) r.v[i] = std::sqrt(a.v[i]);
  return r;
}

// Loads convert to the accumulator type: bf16 and f32 to Vec<float>, f64 to Vec<double>.
inline Vec<float> load(const float* p) { Vec<float> r; std::memcpy(&r.v, p, sizeof r.v); return r; }
inline Vec<double> load(const double* p) { Vec<double> r; std::memcpy(&r.v, p, sizeof r.v); return r; }
inline Vec<float> load(const bf16* p) {
#if defined(__AVX512F__)
  return (Vec<float>::Raw)_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
#elif defined(__AVX2__)
  return (Vec<float>::Raw)_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
#else
  Vec<float> r;
  for (int i = 0; i < Vec<float>::lanes; ++i) r.v[i] = float(p[i]);
  return r;
#endif
}
inline void store(float* p, Vec<float> x) { std::memcpy(p, &x.v, sizeof x.v); }
inline void store(double* p, Vec<double> x) { std::memcpy(p, &x.v, sizeof x.v); }
inline void store(bf16* p, Vec<float> x) {
  // Round to nearest even; a NaN keeps a set mantissa bit (as bf16's constructor).
  typedef uint32_t U __attribute__((vector_size(kVectorBytes)));
  const U u = (U)x.v;
  const U rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
  const U bits = ((u & 0x7fffffffu) > 0x7f800000u) ? quiet : rounded;
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)bits));
#else
  for (int i = 0; i < Vec<float>::lanes; ++i) p[i].bits = uint16_t(bits[i]);
#endif
}

template <class T> inline Vec<Accumulator<T>> load_partial(const T* p, int count, Accumulator<T> fill = 0) {
  T buffer[Vec<Accumulator<T>>::lanes];
  for (int i = 0; i < Vec<Accumulator<T>>::lanes; ++i) buffer[i] = i < count ? p[i] : T(fill);
  return load(buffer);
}
template <class T> inline void store_partial(T* p, Vec<Accumulator<T>> x, int count) {
  T buffer[Vec<Accumulator<T>>::lanes];
  store(buffer, x);
  std::memcpy(p, buffer, size_t(count) * sizeof(T));
}

// Pairwise over the lanes: the order is a property of the instruction set alone.
template <class T> inline T sum_lanes(Vec<T> x) {
  T lane[Vec<T>::lanes];
  store(lane, x);
  for (int width = Vec<T>::lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}
template <class T> inline T max_lanes(Vec<T> x) {
  T best = x.v[0];
  for (int i = 1; i < Vec<T>::lanes; ++i) best = x.v[i] > best ? x.v[i] : best;
  return best;
}

// Calls body(offset, count) over [0, n) in whole vectors, the last one possibly partial.
template <class T, class F> inline void for_vectors(int64_t n, F&& body) {
  constexpr int L = Vec<T>::lanes;
  int64_t i = 0;
  for (; i + L <= n; i += L) body(i, L);
  if (i < n) body(i, int(n - i));
}
template <class T> inline Vec<Accumulator<T>> load_count(const T* p, int count, Accumulator<T> fill = 0) {
  return count == Vec<Accumulator<T>>::lanes ? load(p) : load_partial(p, count, fill);
}
template <class T> inline void store_count(T* p, Vec<Accumulator<T>> x, int count) {
  if (count == Vec<Accumulator<T>>::lanes) store(p, x);
  else store_partial(p, x, count);
}

}  // namespace libmoe::cpu::LIBMOE_ISA

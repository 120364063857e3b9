#pragma once
// exp, log, tanh, erf, sigmoid on vectors: our own polynomials, so that every thread, tail and neighbour gives the same bits.
// Errors: f32 within 2 ulp of the true value for exp and log, 4 for tanh and erf; f64 within 4 ulp.
// Checked by test/ops/math.test.ts.
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {

namespace math_detail {

template <class T> inline Vec<T> polynomial(Vec<T> x, std::initializer_list<T> coefficients) {
  Vec<T> r = Vec<T>::zero();
  for (T c : coefficients) r = fma(r, x, Vec<T>(c));
  return r;
}

// 2^n for integral n within the exponent range.
inline Vec<float> power_of_two(Vec<float> n) {
  using V = Vec<float>;
  const V::RawInt i = __builtin_convertvector(n.v, V::RawInt);
  return (V::Raw)((i + 127) << 23);
}
inline Vec<double> power_of_two(Vec<double> n) {
  using V = Vec<double>;
  const V::RawInt i = __builtin_convertvector(n.v, V::RawInt);
  return (V::Raw)((i + 1023) << 52);
}

// Nearest integer, ties to even, by adding and subtracting 1.5 * 2^mantissa.
inline Vec<float> nearest(Vec<float> x) { const Vec<float> c(12582912.f); return (x + c) - c; }
inline Vec<double> nearest(Vec<double> x) { const Vec<double> c(6755399441055744.0); return (x + c) - c; }

}  // namespace math_detail

// exp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e^r, then scaled by 2^n in two steps (subnormal results stay right).
inline Vec<float> exp(Vec<float> x) {
  using V = Vec<float>;
  using namespace math_detail;
  const V clamped = max(min(x, V(89.f)), V(-104.f));
  const V n = nearest(clamped * V(1.44269504088896341f));
  V r = fma(n, V(-0.693359375f), clamped);
  r = fma(n, V(2.12194440e-4f), r);
  V p = polynomial<float>(r, {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f});
  p = fma(p * r, r, r) + V(1.f);
  const V half = nearest(n * V(0.5f));
  const V y = p * power_of_two(half) * power_of_two(n - half);
  return select<float>(x.v != x.v, x, y);
}
inline Vec<double> exp(Vec<double> x) {
  using V = Vec<double>;
  using namespace math_detail;
  const V clamped = max(min(x, V(710.0)), V(-746.0));
  const V n = nearest(clamped * V(1.4426950408889634074));
  V r = fma(n, V(-6.93145751953125e-1), clamped);
  r = fma(n, V(-1.42860682030941723212e-6), r);
  // Taylor to r^13: the remainder is below 2^-57 for |r| <= 0.3466.
  const V p = polynomial<double>(r, {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                                     1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0});
  const V half = nearest(n * V(0.5));
  const V y = p * power_of_two(half) * power_of_two(n - half);
  return select<double>(x.v != x.v, x, y);
}

// log: x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m-1)/(m+1)) as an odd polynomial.
template <class T> inline Vec<T> log(Vec<T> x) {
  using V = Vec<T>;
  using I = typename V::RawInt;
  constexpr int mantissa_bits = sizeof(T) == 4 ? 23 : 52, bias = sizeof(T) == 4 ? 127 : 1023;
  const T smallest = sizeof(T) == 4 ? T(1.17549435e-38) : T(2.2250738585072014e-308);
  const T lift = sizeof(T) == 4 ? T(0x1p24) : T(0x1p54);
  const I subnormal = x.v < V(smallest).v;
  const V scaled = select<T>(subnormal, x * V(lift), x);
  const I bits = (I)scaled.v;
  I exponent = (bits >> mantissa_bits) - bias;
  const typename V::Int one_bits = typename V::Int(bias) << mantissa_bits, mask = (typename V::Int(1) << mantissa_bits) - 1;
  V m((typename V::Raw)((bits & mask) | one_bits));
  const I large = m.v > V(T(1.4142135623730951)).v;
  m = select<T>(large, m * V(T(0.5)), m);
  exponent = exponent - large;  // a true lane is -1
  V e(__builtin_convertvector(exponent, typename V::Raw));
  e = select<T>(subnormal, e - V(T(sizeof(T) == 4 ? 24 : 54)), e);
  const V f = m - V(T(1)), s = f / (m + V(T(1))), z = s * s;
  V p;
  if constexpr (sizeof(T) == 4)
    p = math_detail::polynomial<T>(z, {T(2.0 / 11), T(2.0 / 9), T(2.0 / 7), T(2.0 / 5), T(2.0 / 3)});
  else
    p = math_detail::polynomial<T>(z, {T(2.0 / 23), T(2.0 / 21), T(2.0 / 19), T(2.0 / 17), T(2.0 / 15), T(2.0 / 13), T(2.0 / 11), T(2.0 / 9), T(2.0 / 7),
                                       T(2.0 / 5), T(2.0 / 3)});
  // log m = 2s + s z p; with f = m - 1: 2s = f - s f, which keeps the leading term exact.
  const V tail = fma(s * z, p, -(s * f));
  const V low = sizeof(T) == 4 ? V(T(-2.12194440e-4)) : V(T(1.42860682030941723212e-6));
  const V high = sizeof(T) == 4 ? V(T(0.693359375)) : V(T(6.93145751953125e-1));
  V y = fma(e, low, tail) + f;
  y = fma(e, high, y);
  const V infinity{T(__builtin_inf())}, nan{T(__builtin_nan(""))};
  y = select<T>(x.v == V::zero().v, -infinity, y);
  y = select<T>(x.v < V::zero().v, nan, y);
  y = select<T>(x.v == infinity.v, infinity, y);
  return select<T>(x.v != x.v, x, y);
}

template <class T> inline Vec<T> sigmoid(Vec<T> x) { return Vec<T>(T(1)) / (Vec<T>(T(1)) + exp(-x)); }

template <class T> inline Vec<T> tanh(Vec<T> x) {
  using V = Vec<T>;
  const V a = abs(x);
  // |x| >= 0.625: 1 - 2 / (e^{2|x|} + 1). Below: odd series by continued fraction, accurate to the last bits there.
  const V large = V(T(1)) - V(T(2)) / (exp(a + a) + V(T(1)));
  const V z = x * x;
  V f = V(T(sizeof(T) == 4 ? 9 : 17));
  for (int k = sizeof(T) == 4 ? 7 : 15; k >= 1; k -= 2) f = V(T(k)) + z / f;
  const V small = x / f;
  const V big = select<T>(x.v < V::zero().v, -large, large);
  return select<T>(a.v < V(T(0.625)).v, small, big);
}

// erf, without branches. Below 1: x times a polynomial in x^2. From 1 on: 1 - exp(-a^2) R, where R(a) = exp(a^2) erfc(a) is a polynomial in
// (a - k) / (a + k), over [1, 4] (k = 2) in f32 and [1, 6] (k = 3) in f64; beyond, erf rounds to 1. Interpolated at Chebyshev nodes.
inline Vec<float> erf(Vec<float> x) {
  using V = Vec<float>;
  using namespace math_detail;
  const V one(1.f), a = abs(x), z = x * x;
  const V small = x * polynomial<float>(z, {7.875875063e-5f, -8.016864287e-4f, 5.189087423e-3f, -2.685421201e-2f, 1.128359472e-1f, -3.761262667e-1f, 1.128379166f});
  const V b = min(a, V(4.f)), t = (b - V(2.f)) / (b + V(2.f));
  const V r = polynomial<float>(t, {-8.379754387e-4f, 6.811140131e-3f, 3.732371759e-3f, -7.896830613e-2f, 2.416582015e-1f, -4.271859898e-1f, 2.553956763e-1f});
  const V large = one - exp(-(b * b)) * r;
  const V big = select<float>(x.v < V::zero().v, -large, large);
  return select<float>(a.v < one.v, small, select<float>(x.v != x.v, x, big));
}
inline Vec<double> erf(Vec<double> x) {
  using V = Vec<double>;
  using namespace math_detail;
  const V one(1.0), a = abs(x), z = x * x;
  const V small = x * polynomial<double>(z, {-7.795898827002142242e-10, 1.37200645467776856e-8, -1.62084838018717059e-7, 1.644742470331736241e-6,
                                             -1.492473690741966034e-5, 1.205529490483970792e-4, -8.548325975389692081e-4, 5.223977607116422732e-3,
                                             -2.686617064323777036e-2, 1.128379167094500627e-1, -3.761263890318354044e-1, 1.128379167095512567});
  const V b = min(a, V(6.0)), t = (b - V(3.0)) / (b + V(3.0));
  const V r = polynomial<double>(t, {1.280190086296266194e-6, 2.023603179641756635e-6, -8.008021319412684335e-6, -1.28488945125235288e-5, 6.406182073530546743e-5,
                                     4.525472635483354137e-5, -5.970623517093284279e-4, 7.077464443901537315e-4, 4.269136347508256361e-3, -2.439249931827319312e-2,
                                     7.166583719774874339e-2, -1.501159365007874391e-1, 2.456038017123319448e-1, -3.262335600430371748e-1, 1.790011511813899502e-1});
  const V large = one - exp(-(b * b)) * r;
  const V big = select<double>(x.v < V::zero().v, -large, large);
  return select<double>(a.v < one.v, small, select<double>(x.v != x.v, x, big));
}

}  // namespace libmoe::cpu::LIBMOE_ISA

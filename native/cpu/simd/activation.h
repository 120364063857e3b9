#pragma once
// Value and derivative of every pointwise function, for elementwise.cpp and for the epilogues of grouped_ffn.
#include "cpu/simd/math.h"
#include "ops/elementwise.h"

namespace libmoe::cpu::LIBMOE_ISA {

template <Unary U, class T> inline Vec<T> apply(Vec<T> x) {
  using V = Vec<T>;
  const V one(T(1)), half(T(0.5));
  if constexpr (U == Unary::negate) return -x;
  if constexpr (U == Unary::exp) return exp(x);
  if constexpr (U == Unary::log) return log(x);
  if constexpr (U == Unary::sqrt) return sqrt(x);
  if constexpr (U == Unary::reciprocal) return one / x;
  if constexpr (U == Unary::abs) return abs(x);
  if constexpr (U == Unary::square) return x * x;
  if constexpr (U == Unary::sigmoid) return sigmoid(x);
  if constexpr (U == Unary::tanh) return tanh(x);
  if constexpr (U == Unary::erf) return erf(x);
  if constexpr (U == Unary::relu) return select<T>(x.v < V::zero().v, V::zero(), x);  // a NaN stays
  if constexpr (U == Unary::silu) return x * sigmoid(x);
  if constexpr (U == Unary::gelu_erf) return half * x * (one + erf(x * V(T(0.7071067811865476))));
  if constexpr (U == Unary::gelu_tanh) return half * x * (one + tanh(V(T(0.7978845608028654)) * fma(V(T(0.044715)) * x * x, x, x)));
  if constexpr (U == Unary::quick_gelu) return x * sigmoid(V(T(1.702)) * x);
  if constexpr (U == Unary::softplus) {
    // log(1 + u) loses u's digits in the sum; log(w) u / (w - 1) with the rounded w = 1 + u gives them back (Kahan).
    const V u = exp(-abs(x)), w = one + u;
    return max(x, V::zero()) + select<T>(w.v == one.v, u, log(w) * u / (w - one));
  }
}

template <Unary U, class T> inline Vec<T> derivative(Vec<T> x) {
  using V = Vec<T>;
  const V one(T(1)), half(T(0.5)), zero = V::zero();
  if constexpr (U == Unary::negate) return -one;
  if constexpr (U == Unary::exp) return exp(x);
  if constexpr (U == Unary::log) return one / x;
  if constexpr (U == Unary::sqrt) return half / sqrt(x);
  if constexpr (U == Unary::reciprocal) return -(one / (x * x));
  if constexpr (U == Unary::abs) return select<T>(x.v > zero.v, one, select<T>(x.v < zero.v, -one, zero));
  if constexpr (U == Unary::square) return x + x;
  if constexpr (U == Unary::sigmoid) { const V s = sigmoid(x); return s * (one - s); }
  if constexpr (U == Unary::tanh) { const V t = tanh(x); return one - t * t; }
  if constexpr (U == Unary::erf) return V(T(1.1283791670955126)) * exp(-(x * x));
  if constexpr (U == Unary::relu) return select<T>(x.v > zero.v, one, zero);
  if constexpr (U == Unary::silu) { const V s = sigmoid(x); return s * (one + x * (one - s)); }
  if constexpr (U == Unary::gelu_erf)
    return half * (one + erf(x * V(T(0.7071067811865476)))) + x * V(T(0.3989422804014327)) * exp(-half * x * x);
  if constexpr (U == Unary::gelu_tanh) {
    const V c(T(0.7978845608028654)), k(T(0.044715)), t = tanh(c * fma(k * x * x, x, x));
    return half * (one + t) + half * x * (one - t * t) * c * (one + V(T(3)) * k * x * x);
  }
  if constexpr (U == Unary::quick_gelu) { const V s = sigmoid(V(T(1.702)) * x); return s * (one + V(T(1.702)) * x * (one - s)); }
  if constexpr (U == Unary::softplus) return sigmoid(x);
}

}  // namespace libmoe::cpu::LIBMOE_ISA

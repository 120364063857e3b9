#pragma once
// Value and derivative of every pointwise function, in f32 or f64; the formulas of native/cpu/simd/activation.h.
#include <cuda_runtime.h>

#include <cmath>

#include "ops/elementwise.h"

namespace libmoe::cuda {

template <class T> __device__ inline T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }

template <Unary U, class T> __device__ inline T apply(T x) {
  if constexpr (U == Unary::negate) return -x;
  else if constexpr (U == Unary::exp) return exp(x);
  else if constexpr (U == Unary::log) return log(x);
  else if constexpr (U == Unary::sqrt) return sqrt(x);
  else if constexpr (U == Unary::reciprocal) return T(1) / x;
  else if constexpr (U == Unary::abs) return fabs(x);
  else if constexpr (U == Unary::square) return x * x;
  else if constexpr (U == Unary::sigmoid) return sigmoid(x);
  else if constexpr (U == Unary::tanh) return tanh(x);
  else if constexpr (U == Unary::erf) return erf(x);
  else if constexpr (U == Unary::relu) return x < T(0) ? T(0) : x;  // a NaN stays
  else if constexpr (U == Unary::silu) return x * sigmoid(x);
  else if constexpr (U == Unary::gelu_erf) return T(0.5) * x * (T(1) + erf(x * T(0.7071067811865476)));
  else if constexpr (U == Unary::gelu_tanh) return T(0.5) * x * (T(1) + tanh(T(0.7978845608028654) * (x + T(0.044715) * x * x * x)));
  else if constexpr (U == Unary::quick_gelu) return x * sigmoid(T(1.702) * x);
  else if constexpr (U == Unary::softplus) return (x > T(0) ? x : T(0)) + log1p(exp(-fabs(x))) + (x != x ? x : T(0));
}

template <Unary U, class T> __device__ inline T derivative(T x) {
  if constexpr (U == Unary::negate) return T(-1);
  else if constexpr (U == Unary::exp) return exp(x);
  else if constexpr (U == Unary::log) return T(1) / x;
  else if constexpr (U == Unary::sqrt) return T(0.5) / sqrt(x);
  else if constexpr (U == Unary::reciprocal) return -(T(1) / (x * x));
  else if constexpr (U == Unary::abs) return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0);
  else if constexpr (U == Unary::square) return x + x;
  else if constexpr (U == Unary::sigmoid) {
    const T s = sigmoid(x);
    return s * (T(1) - s);
  } else if constexpr (U == Unary::tanh) {
    const T t = tanh(x);
    return T(1) - t * t;
  } else if constexpr (U == Unary::erf) return T(1.1283791670955126) * exp(-(x * x));
  else if constexpr (U == Unary::relu) return x > T(0) ? T(1) : T(0);
  else if constexpr (U == Unary::silu) {
    const T s = sigmoid(x);
    return s * (T(1) + x * (T(1) - s));
  } else if constexpr (U == Unary::gelu_erf)
    return T(0.5) * (T(1) + erf(x * T(0.7071067811865476))) + x * T(0.3989422804014327) * exp(T(-0.5) * x * x);
  else if constexpr (U == Unary::gelu_tanh) {
    const T c = T(0.7978845608028654), k = T(0.044715), t = tanh(c * (x + k * x * x * x));
    return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * c * (T(1) + T(3) * k * x * x);
  } else if constexpr (U == Unary::quick_gelu) {
    const T s = sigmoid(T(1.702) * x);
    return s * (T(1) + T(1.702) * x * (T(1) - s));
  } else if constexpr (U == Unary::softplus) return sigmoid(x);
}

}  // namespace libmoe::cuda

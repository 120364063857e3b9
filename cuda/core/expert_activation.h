#pragma once
// The activations of experts and their slopes; the formulas of native/cpu/simd/ffn_epilogue.h. `kRough`: the sigmoid's exponential and quotient come from the
// special-function unit (a few units in the last place of f32), for sums that are rounded to bf16 at once.
#include "cuda/core/activation.h"
#include "ops/grouped_ffn.h"

namespace libmoe::cuda {

// Bounds of what enters clamped_swiglu. A NaN stays one.
template <class A> __device__ inline A below_limit(A z) { return z > A(7) ? A(7) : z; }
template <class A> __device__ inline A above_limit(A z) { return z < A(-7) ? A(-7) : z; }

// 1 / (1 + e^-x); beyond the range of the quotient the limit 0.
__device__ inline float rough_sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
template <float kScale> __device__ inline float rough_swish(float x) { return x * rough_sigmoid(kScale * x); }
template <float kScale> __device__ inline float rough_swish_slope(float x) {
  const float s = rough_sigmoid(kScale * x);
  return s * (1.0f + kScale * x * (1.0f - s));
}

template <Activation F, bool kRough, class A> __device__ inline A activate(A z) {
  if constexpr (kRough && F == Activation::silu) return rough_swish<1.0f>(z);
  if constexpr (kRough && F == Activation::quick_gelu) return rough_swish<1.702f>(z);
  if constexpr (kRough && F == Activation::clamped_swiglu) return rough_swish<1.702f>(below_limit(z));
  if constexpr (F == Activation::identity) return z;
  else if constexpr (F == Activation::relu) return apply<Unary::relu>(z);
  else if constexpr (F == Activation::silu) return apply<Unary::silu>(z);
  else if constexpr (F == Activation::gelu_erf) return apply<Unary::gelu_erf>(z);
  else if constexpr (F == Activation::gelu_tanh) return apply<Unary::gelu_tanh>(z);
  else if constexpr (F == Activation::quick_gelu) return apply<Unary::quick_gelu>(z);
  else return apply<Unary::quick_gelu>(below_limit(z));
}
template <Activation F, bool kRough, class A> __device__ inline A slope(A z) {
  if constexpr (kRough && F == Activation::silu) return rough_swish_slope<1.0f>(z);
  if constexpr (kRough && F == Activation::quick_gelu) return rough_swish_slope<1.702f>(z);
  if constexpr (kRough && F == Activation::clamped_swiglu) return z > A(7) ? A(0) : rough_swish_slope<1.702f>(z);
  if constexpr (F == Activation::identity) return A(1);
  else if constexpr (F == Activation::relu) return derivative<Unary::relu>(z);
  else if constexpr (F == Activation::silu) return derivative<Unary::silu>(z);
  else if constexpr (F == Activation::gelu_erf) return derivative<Unary::gelu_erf>(z);
  else if constexpr (F == Activation::gelu_tanh) return derivative<Unary::gelu_tanh>(z);
  else if constexpr (F == Activation::quick_gelu) return derivative<Unary::quick_gelu>(z);
  else return z > A(7) ? A(0) : derivative<Unary::quick_gelu>(z);
}
// The factor that the up rows give, and its slope times `d`.
template <Activation F, class A> __device__ inline A up_factor(A up) {
  if constexpr (F == Activation::clamped_swiglu) return above_limit(below_limit(up)) + A(1);
  else return up;
}
template <Activation F, class A> __device__ inline A up_slope(A up, A d) {
  if constexpr (F == Activation::clamped_swiglu) return fabs(up) > A(7) ? A(0) : d;
  else return d;
}

// A branch that all threads take alike: cheap beside the elements it is around.
template <class F> __device__ inline void with_activation(Activation f, F&& body) {
  switch (f) {
    case Activation::relu: return body.template operator()<Activation::relu>();
    case Activation::silu: return body.template operator()<Activation::silu>();
    case Activation::gelu_erf: return body.template operator()<Activation::gelu_erf>();
    case Activation::gelu_tanh: return body.template operator()<Activation::gelu_tanh>();
    case Activation::quick_gelu: return body.template operator()<Activation::quick_gelu>();
    case Activation::clamped_swiglu: return body.template operator()<Activation::clamped_swiglu>();
    default: return body.template operator()<Activation::identity>();
  }
}

}  // namespace libmoe::cuda

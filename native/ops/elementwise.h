#pragma once
// Elementwise operations. Tensors are contiguous; f32, bf16 and f64 unless said otherwise; bf16 computes in f32 and rounds once.
#include "core/tensor.h"
#include "ops/grouped_ffn.h"

namespace libmoe {

enum class Unary : int { negate, exp, log, sqrt, reciprocal, abs, square, sigmoid, tanh, erf, relu, silu, gelu_erf, gelu_tanh, quick_gelu, softplus };
enum class Binary : int { add, subtract, multiply, divide, maximum, minimum, greater, greater_equal, equal };

// How two operands map onto the output: an operand's stride is 0 along a dimension that it repeats.
struct Broadcast {
  Shape shape;                                    // of the output
  std::array<int64_t, kMaxRank> a_strides{}, b_strides{};  // in elements
};

struct ElementwiseOps {
  // y[i] = f(x[i]). y has x's dtype and element count.
  void (*unary)(Unary f, const TensorView& x, const TensorView& y);
  // dx[i] = dy[i] * f'(x[i]). All of one dtype.
  void (*unary_backward)(Unary f, const TensorView& x, const TensorView& dy, const TensorView& dx);
  // Between the matrices of a gated feed-forward layer, with the activations of ops/grouped_ffn.h: y[r, j] = act(z[r, j]) * z[r, width + j], rounded once.
  // z [..., 2 width], y [..., width], dy like y, dz like z; all of one dtype.
  void (*gated)(Activation f, const TensorView& z, const TensorView& y);
  void (*gated_backward)(Activation f, const TensorView& z, const TensorView& dy, const TensorView& dz);
  // y = f(a, b) with broadcasting. Arithmetic: all of one dtype; comparisons write 1 or 0 in that dtype.
  void (*binary)(Binary f, const TensorView& a, const TensorView& b, const TensorView& y, const Broadcast& broadcast);
  // y[i] = alpha * x[i] + beta.
  void (*affine)(const TensorView& x, const TensorView& y, double alpha, double beta);
  // y[i] += alpha * x[i]. y may be f32 or f64 where x is narrower (gradient accumulation).
  void (*accumulate)(const TensorView& x, const TensorView& y, double alpha);
  // y[i] = x[i] converted. Any pair of types; floats to integers truncate toward zero, bool is x != 0.
  void (*cast)(const TensorView& x, const TensorView& y);
  // Numbers of 4 bits (OCP microscaling format MXFP4: sign, two bits of exponent, one of mantissa), the lower half of a byte first, times
  // 2^(scale - 127) of their group of 32; scale 255 is NaN. blocks u8 [groups, 16], scales u8 [groups], y [groups, 32] floats.
  void (*dequantise_mxfp4)(const TensorView& blocks, const TensorView& scales, const TensorView& y);
  // y[i] = value, any type.
  void (*fill)(const TensorView& y, double value);
  // y[i] = mask[i] ? a[i] : b[i]; mask is bool, equal shapes.
  void (*where)(const TensorView& mask, const TensorView& a, const TensorView& b, const TensorView& y);
};

}  // namespace libmoe

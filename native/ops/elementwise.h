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

// What the backends share: from an operation, known at run time, to a template argument, and the way through two operands.
template <class F> inline void with_unary(Unary f, F&& body) {
  switch (f) {
    case Unary::negate: return body.template operator()<Unary::negate>();
    case Unary::exp: return body.template operator()<Unary::exp>();
    case Unary::log: return body.template operator()<Unary::log>();
    case Unary::sqrt: return body.template operator()<Unary::sqrt>();
    case Unary::reciprocal: return body.template operator()<Unary::reciprocal>();
    case Unary::abs: return body.template operator()<Unary::abs>();
    case Unary::square: return body.template operator()<Unary::square>();
    case Unary::sigmoid: return body.template operator()<Unary::sigmoid>();
    case Unary::tanh: return body.template operator()<Unary::tanh>();
    case Unary::erf: return body.template operator()<Unary::erf>();
    case Unary::relu: return body.template operator()<Unary::relu>();
    case Unary::silu: return body.template operator()<Unary::silu>();
    case Unary::gelu_erf: return body.template operator()<Unary::gelu_erf>();
    case Unary::gelu_tanh: return body.template operator()<Unary::gelu_tanh>();
    case Unary::quick_gelu: return body.template operator()<Unary::quick_gelu>();
    case Unary::softplus: return body.template operator()<Unary::softplus>();
  }
}

template <class F> inline void with_binary(Binary f, F&& body) {
  switch (f) {
    case Binary::add: return body.template operator()<Binary::add>();
    case Binary::subtract: return body.template operator()<Binary::subtract>();
    case Binary::multiply: return body.template operator()<Binary::multiply>();
    case Binary::divide: return body.template operator()<Binary::divide>();
    case Binary::maximum: return body.template operator()<Binary::maximum>();
    case Binary::minimum: return body.template operator()<Binary::minimum>();
    case Binary::greater: return body.template operator()<Binary::greater>();
    case Binary::greater_equal: return body.template operator()<Binary::greater_equal>();
    case Binary::equal: return body.template operator()<Binary::equal>();
  }
}

// Dimensions of the output with the strides of both operands, those that both walk alike merged: most calls become one or two loops.
struct Walk {
  int rank = 0;
  int64_t sizes[kMaxRank]{}, a[kMaxRank]{}, b[kMaxRank]{};
};

inline Walk merged(const Broadcast& broadcast) {
  Walk w;
  for (int i = 0; i < broadcast.shape.rank; ++i) {
    const int64_t size = broadcast.shape.dims[i], sa = broadcast.a_strides[i], sb = broadcast.b_strides[i];
    if (size == 1) continue;
    const int last = w.rank - 1;
    if (last >= 0 && w.a[last] == sa * size && w.b[last] == sb * size) {
      w.sizes[last] *= size;
      w.a[last] = sa;
      w.b[last] = sb;
    } else {
      w.sizes[w.rank] = size;
      w.a[w.rank] = sa;
      w.b[w.rank++] = sb;
    }
  }
  return w;
}

}  // namespace libmoe

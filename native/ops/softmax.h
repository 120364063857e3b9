#pragma once
// Softmax and its logarithm over the last dimension, computed in f32 (f64 for f64). All tensors [rows, width], one dtype per call.
#include "core/tensor.h"

namespace libmoe {

struct SoftmaxOps {
  // y = exp(x - max) / sum exp(x - max), or with `logarithm` y = x - max - log sum exp(x - max). A row of -inf alone gives NaN.
  void (*softmax)(const TensorView& x, const TensorView& y, bool logarithm);
  // From y, the result of the forward pass: dx = y (dy - sum(y dy)), or with `logarithm` dx = dy - exp(y) sum(dy).
  void (*softmax_backward)(const TensorView& y, const TensorView& dy, const TensorView& dx, bool logarithm);
};

}  // namespace libmoe

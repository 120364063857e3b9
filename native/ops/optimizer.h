#pragma once
// Optimizer steps over many tensors in one call. Parameters f32, bf16 or f64; gradients f32 (f64 for f64) or of the parameter's type; everything else
// f32 (f64 for f64). Scalars are computed in f64 and rounded once.
// Nothing here waits for the device but non_finite: norm and clip factor stay there, and a step whose factor is not finite changes nothing.
#include <vector>

#include "core/tensor.h"

namespace libmoe {

struct AdamwTensor {
  TensorView parameter, gradient, first_moment, second_moment;
  TensorView master;  // absent unless the parameter is bf16: the f32 copy that is updated; the parameter is rounded from it
  double weight_decay = 0;
};
struct AdamwOptions {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, gradient_scale = 1;
  int64_t step = 1;   // 1 for the first
  TensorView factor;  // f64 [1] or absent: multiplies gradient_scale
};

struct SgdTensor {
  TensorView parameter, gradient;
  TensorView momentum;  // absent without momentum
  TensorView master;
  double weight_decay = 0;
};
struct SgdOptions {
  double learning_rate = 1e-3, momentum = 0, gradient_scale = 1;
  bool nesterov = false;
  TensorView factor;  // as above
};

struct OptimizerOps {
  // Loshchilov & Hutter, "Decoupled weight decay regularization" (arXiv 1711.05101), in PyTorch's order of operations:
  //   p -= lr wd p;  m += (1 - b1)(g - m);  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps),  g = gradient_scale * gradient.
  void (*adamw)(const std::vector<AdamwTensor>&, const AdamwOptions&);
  // g = gradient_scale * gradient + wd p;  b = momentum b + g;  p -= lr b, or with nesterov p -= lr (g + momentum b). b starts from zeros.
  void (*sgd)(const std::vector<SgdTensor>&, const SgdOptions&);
  // norm f64 [1]: square root of the sum of all squares, in f64 over fixed pieces. f32, bf16, f64.
  void (*global_norm)(const std::vector<TensorView>&, const TensorView& norm);
  // factor f64 [1]: min(1, limit / (norm + 1e-6)), the small number being that of PyTorch's clip_grad_norm_; 1 for an infinite limit. NaN where the norm or an
  // element of `losses` (f32 or f64, any shapes) is not finite, or where an operation before this one has met a bad value on the device.
  void (*clip_factor)(const TensorView& norm, const std::vector<TensorView>& losses, double limit, const TensorView& factor);
  // Index of the first tensor that holds a NaN or an infinity, or -1. Waits for the device.
  int64_t (*non_finite)(const std::vector<TensorView>&);
};

}  // namespace libmoe

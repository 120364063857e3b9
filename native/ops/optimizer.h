#pragma once
// Optimizer steps over many tensors in one call. Parameters f32, bf16 or f64; gradients f32 (f64 for f64) or of the parameter's type; everything else
// f32 (f64 for f64). Scalars are computed in f64 and rounded once.
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
  int64_t step = 1;  // 1 for the first
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
};

struct OptimizerOps {
  // Loshchilov & Hutter, "Decoupled weight decay regularization" (arXiv 1711.05101), in PyTorch's order of operations:
  //   p -= lr wd p;  m += (1 - b1)(g - m);  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps),  g = gradient_scale * gradient.
  void (*adamw)(const std::vector<AdamwTensor>&, const AdamwOptions&);
  // g = gradient_scale * gradient + wd p;  b = momentum b + g;  p -= lr b, or with nesterov p -= lr (g + momentum b). b starts from zeros.
  void (*sgd)(const std::vector<SgdTensor>&, const SgdOptions&);
  // Square root of the sum of all squares, in f64 over fixed pieces. f32, bf16, f64.
  double (*global_norm)(const std::vector<TensorView>&);
  // Index of the first tensor that holds a NaN or an infinity, or -1.
  int64_t (*non_finite)(const std::vector<TensorView>&);
};

}  // namespace libmoe

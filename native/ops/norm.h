#pragma once
// Layer normalisation (Ba et al., 2016) and root mean square normalisation (Zhang and Sennrich, 2019) over the last dimension.
// x, weight, bias, y and their gradients: f32, bf16 or f64, one dtype per call; statistics and weight gradients: f32 (f64 for f64).
#include "core/tensor.h"

namespace libmoe {

struct NormOps {
  // y[r] = (x[r] - mean[r]) * inverse[r] * weight + bias, with inverse = 1 / sqrt(variance + epsilon), variance divided by width.
  // x, y [rows, width]; weight [width]; bias [width] or absent; mean, inverse [rows], written for the backward pass.
  // `mean` absent: root mean square form, y[r] = x[r] * inverse[r] * weight + bias, inverse = 1 / sqrt(mean of squares + epsilon).
  void (*norm)(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y, const TensorView& mean, const TensorView& inverse,
               double epsilon);

  // Gradients; each of dx, dweight, dbias may be absent. dweight, dbias [width] accumulators: added to when the flag is set, else overwritten.
  // Sums over rows run in fixed chunks of rows (64 on the CPU; on CUDA a function of the width), chunks in ascending order.
  void (*norm_backward)(const TensorView& x, const TensorView& weight, const TensorView& dy, const TensorView& mean, const TensorView& inverse, const TensorView& dx,
                        const TensorView& dweight, bool accumulate_weight, const TensorView& dbias, bool accumulate_bias);

  // y[r] = 1 / (max(|x[r]|, floor) + plus), |.| the Euclidean norm; dx = 0 for a row below the floor. x, dx [rows, width]; y, dy [rows] f32 (f64 for f64).
  void (*inverse_norms)(const TensorView& x, double floor, double plus, const TensorView& y);
  void (*inverse_norms_backward)(const TensorView& x, double floor, const TensorView& y, const TensorView& dy, const TensorView& dx);
};

}  // namespace libmoe

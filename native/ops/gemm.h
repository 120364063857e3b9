#pragma once
// Matrix products and the column sums that bias gradients are. f32, bf16 (accumulated in f32) and f64. An element's bits depend on its row of
// a, its column of b and k alone: not on how many rows there are, nor on tiles or threads.
#include "core/tensor.h"

namespace libmoe {

struct GemmOptions {
  bool transpose_a = false;  // a is stored [k, m]
  bool transpose_b = false;  // b is stored [n, k]
  bool accumulate = false;   // add to what c holds
  bool batched = false;      // all operands [batch, ., .]; otherwise every tensor is read as a matrix [all but the last dimension, last]
};

struct GemmOps {
  // c = a b (+ bias [n]) (+ c). a, b and bias of one dtype; c of that dtype, or f32 for bf16.
  void (*gemm)(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c, const GemmOptions& options);
  // y[j] = (y[j] +) sum over rows of x[row, j]; y f32, or f64 for f64. Rows are summed in fixed chunks, chunks in ascending order.
  void (*column_sums)(const TensorView& x, const TensorView& y, bool accumulate);
};

}  // namespace libmoe

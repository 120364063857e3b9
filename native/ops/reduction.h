#pragma once
// Reductions. Inputs f32, bf16 or f64; sums run in f32 (f64 for f64) inside a fixed chunk and in f64 across chunks, so that neither the number of
// threads nor the number of rows changes a bit, and a sum of millions of elements keeps the error of a sum of one chunk.
#include <vector>

#include "core/tensor.h"

namespace libmoe {

enum class Reduction : int { sum, mean, max };

struct ReductionOps {
  // y = f(x) over the axes whose bit is set. y holds one element per combination of the other axes, in x's dtype, or in f32 where x is bf16.
  // sum of nothing is 0; the caller refuses mean and max of nothing. max: a NaN wins.
  void (*reduce)(Reduction f, const TensorView& x, uint32_t axes, const TensorView& y);
  // y[row] = index of the largest x[row, :]: the lowest one on ties; the first NaN if there is one. x [rows, n], n >= 1, y i32 [rows].
  void (*argmax)(const TensorView& x, const TensorView& y);
  // y[row] = log sum exp x[row, :], -infinity for an empty row or one of -infinities. x [rows, n], y [rows] f32 (f64 for f64).
  void (*log_sum_exp)(const TensorView& x, const TensorView& y);
  // dx[row, j] = dy[row] exp(x[row, j] - y[row]). y and dy f32 (f64 for f64), dx in x's dtype.
  void (*log_sum_exp_backward)(const TensorView& x, const TensorView& y, const TensorView& dy, const TensorView& dx);
};

// Runs of kept and reduced axes, merged, axes of size one left out.
struct Groups {
  std::vector<int64_t> sizes;
  std::vector<bool> reduced;
};
inline Groups groups_of(const Shape& shape, uint32_t axes) {
  Groups g;
  for (int i = 0; i < shape.rank; ++i) {
    const bool r = axes >> i & 1u;
    if (shape.dims[i] == 1) continue;
    if (!g.sizes.empty() && g.reduced.back() == r) g.sizes.back() *= shape.dims[i];
    else {
      g.sizes.push_back(shape.dims[i]);
      g.reduced.push_back(r);
    }
  }
  return g;
}

}  // namespace libmoe

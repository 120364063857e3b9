#pragma once
// Moving elements: any dtype, no arithmetic except in scatter_add_rows.
#include "core/tensor.h"

namespace libmoe {

// A box of elements and how to walk it in the source and in the destination. A source stride may be 0 (repeat).
struct StridedCopy {
  Shape shape;
  std::array<int64_t, kMaxRank> from{}, to{};  // strides in elements
  int64_t from_offset = 0, to_offset = 0;
};

// A box of elements of any dtype in host memory of any alignment, in the order that its strides (in elements) say.
struct HostBox {
  const char* data = nullptr;
  Dtype dtype = Dtype::f32;
  std::array<int64_t, kMaxRank> strides{};
};

struct ShapeOps {
  // y[to] = x[from] for every element of the box; the rest of y stays. The caller has checked that the box lies inside both.
  void (*copy_strided)(const TensorView& x, const TensorView& y, const StridedCopy& box);
  // y = the box of y's shape that begins at x.data, converted to y's dtype. Nothing of its size is allocated when its elements lie in y's order and
  // either need no conversion or are aligned.
  void (*read_host)(const HostBox& x, const TensorView& y);
  // y[i, :] = x[index[i], :]. x [rows, width], index i32 [n], y [n, width], any dtype. Throws ERR_LIBMOE_ARGUMENT, before writing, for an index
  // outside [0, rows).
  void (*gather_rows)(const TensorView& x, const TensorView& index, const TensorView& y);
  // y[index[i], :] += x[i, :]. x [n, width] and y [rows, width] of one float dtype; the terms of a row are added in ascending i, in f32 (f64 for f64),
  // onto what y holds, and rounded once. Same error.
  void (*scatter_add_rows)(const TensorView& x, const TensorView& index, const TensorView& y);
};

}  // namespace libmoe

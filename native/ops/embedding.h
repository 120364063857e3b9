#pragma once
// Rows of a table by id. f32, bf16 and f64.
#include "core/tensor.h"

namespace libmoe {

struct EmbeddingOps {
  // y[i, :] = weight[ids[i], :]. weight [vocabulary, d], ids i32 [n], y [n, d]. Throws ERR_LIBMOE_ARGUMENT, before writing, for an id outside the table.
  void (*forward)(const TensorView& weight, const TensorView& ids, const TensorView& y);
  // dweight[id, :] (+)= sum over the positions i of id, ascending, of dy[i, :]. dweight f32 (f64 for f64). Without `accumulate` rows that no id names
  // become zero.
  void (*backward)(const TensorView& dy, const TensorView& ids, const TensorView& dweight, bool accumulate);
};

}  // namespace libmoe

#include "cuda/core/tables.h"

namespace libmoe::cuda {

// One line per op family; each is defined in the file of its name.
extern const AttentionOps attention_ops;
extern const ElementwiseOps elementwise_ops;
extern const GemmOps gemm_ops;
extern const GroupedFfnOps grouped_ffn_ops;
extern const LossOps loss_ops;
extern const OptimizerOps optimizer_ops;
extern const ReductionOps reduction_ops;
extern const ShapeOps shape_ops;
extern const SoftmaxOps softmax_ops;

void fill(Backend& b) {
  b.attention = &attention_ops;
  b.elementwise = &elementwise_ops;
  b.gemm = &gemm_ops;
  b.grouped_ffn = &grouped_ffn_ops;
  b.loss = &loss_ops;
  b.optimizer = &optimizer_ops;
  b.reduction = &reduction_ops;
  b.shape = &shape_ops;
  b.softmax = &softmax_ops;
}

}  // namespace libmoe::cuda

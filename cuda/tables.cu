#include "cuda/core/tables.h"

namespace libmoe::cuda {

// One line per op family; each is defined in the file of its name.
extern const AttentionOps attention_ops;
extern const ElementwiseOps elementwise_ops;
extern const EmbeddingOps embedding_ops;
extern const GatingOps gating_ops;
extern const GemmOps gemm_ops;
extern const GroupedFfnOps grouped_ffn_ops;
extern const ImageOps image_ops;
extern const LossOps loss_ops;
extern const NormOps norm_ops;
extern const OptimizerOps optimizer_ops;
extern const PermutationOps permutation_ops;
extern const RandomOps random_ops;
extern const ReductionOps reduction_ops;
extern const RotaryOps rotary_ops;
extern const ShapeOps shape_ops;
extern const SoftmaxOps softmax_ops;

void fill(Backend& b) {
  b.attention = &attention_ops;
  b.elementwise = &elementwise_ops;
  b.embedding = &embedding_ops;
  b.gating = &gating_ops;
  b.gemm = &gemm_ops;
  b.grouped_ffn = &grouped_ffn_ops;
  b.image = &image_ops;
  b.loss = &loss_ops;
  b.norm = &norm_ops;
  b.optimizer = &optimizer_ops;
  b.permutation = &permutation_ops;
  b.random = &random_ops;
  b.reduction = &reduction_ops;
  b.rotary = &rotary_ops;
  b.shape = &shape_ops;
  b.softmax = &softmax_ops;
}

}  // namespace libmoe::cuda

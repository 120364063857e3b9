#include "cpu/tables.h"

namespace libmoe::cpu::LIBMOE_ISA {

// One line per op family; each is defined in the file of its name. Weak until every family is written.
extern const AttentionOps attention_ops __attribute__((weak));
extern const ElementwiseOps elementwise_ops __attribute__((weak));
extern const EmbeddingOps embedding_ops __attribute__((weak));
extern const GatingOps gating_ops __attribute__((weak));
extern const GemmOps gemm_ops __attribute__((weak));
extern const GroupedFfnOps grouped_ffn_ops __attribute__((weak));
extern const LossOps loss_ops __attribute__((weak));
extern const NormOps norm_ops __attribute__((weak));
extern const OptimizerOps optimizer_ops __attribute__((weak));
extern const PermutationOps permutation_ops __attribute__((weak));
extern const RandomOps random_ops __attribute__((weak));
extern const ReductionOps reduction_ops __attribute__((weak));
extern const RotaryOps rotary_ops __attribute__((weak));
extern const ShapeOps shape_ops __attribute__((weak));
extern const SoftmaxOps softmax_ops __attribute__((weak));

void fill(Backend& b) {
  b.attention = &attention_ops;
  b.elementwise = &elementwise_ops;
  b.embedding = &embedding_ops;
  b.gating = &gating_ops;
  b.gemm = &gemm_ops;
  b.grouped_ffn = &grouped_ffn_ops;
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

}  // namespace libmoe::cpu::LIBMOE_ISA

#include "cuda/core/tables.h"

namespace libmoe::cuda {

extern const ElementwiseOps elementwise_ops;
extern const GatingOps gating_ops;
extern const PermutationOps permutation_ops;

void fill(Backend& b) {
  b.elementwise = &elementwise_ops;
  b.gating = &gating_ops;
  b.permutation = &permutation_ops;
}

}  // namespace libmoe::cuda

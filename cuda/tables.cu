#include "cuda/core/tables.h"

namespace libmoe::cuda {

// One line per op family; each is defined in the file of its name.
extern const ElementwiseOps elementwise_ops;
extern const OptimizerOps optimizer_ops;

void fill(Backend& b) {
  b.elementwise = &elementwise_ops;
  b.optimizer = &optimizer_ops;
}

}  // namespace libmoe::cuda

#include "cuda/core/tables.h"

namespace libmoe::cuda {

extern const ElementwiseOps elementwise_ops;

void fill(Backend& b) { b.elementwise = &elementwise_ops; }

}  // namespace libmoe::cuda

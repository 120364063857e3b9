#include "cuda/core/tables.h"

namespace libmoe::cuda {

extern const AttentionOps attention_ops;
extern const ElementwiseOps elementwise_ops;

void fill(Backend& b) {
  b.attention = &attention_ops;
  b.elementwise = &elementwise_ops;
}

}  // namespace libmoe::cuda

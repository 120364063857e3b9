#include "cuda/core/tables.h"

namespace libmoe::cuda {

extern const ElementwiseOps elementwise_ops;
extern const GemmOps gemm_ops;
extern const GroupedFfnOps grouped_ffn_ops;

void fill(Backend& b) {
  b.elementwise = &elementwise_ops;
  b.gemm = &gemm_ops;
  b.grouped_ffn = &grouped_ffn_ops;
}

}  // namespace libmoe::cuda

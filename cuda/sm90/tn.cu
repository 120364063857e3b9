// Gradients of weights, dense and of experts: 2 m n k FLOPs over the rows, which are k here; both operands are read by columns, one of an expert's gathered.
#include "cuda/sm90/operations.h"
#include "cuda/sm90/product.h"

namespace libmoe::cuda::sm90 {

void product_tn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p, int64_t slots) {
  if (wide_tiles(p.schedule.n, p.schedule.k)) run<256, true, true, 64>(state, p, slots);
  else run<128, true, true, 64>(state, p, slots);
}

}  // namespace libmoe::cuda::sm90

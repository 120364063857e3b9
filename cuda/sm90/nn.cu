// Gradients of inputs, dense and of experts: 2 m n k FLOPs; the weights lie as they do for the forward product, so that wgmma reads them by columns.
#include "cuda/sm90/operations.h"
#include "cuda/sm90/product.h"

namespace libmoe::cuda::sm90 {

void product_nn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p, int64_t slots) {
  if (wide_tiles(p.schedule.n, p.schedule.k)) run<256, false, true, 64>(state, p, slots);
  else run<128, false, true, 64>(state, p, slots);
}

}  // namespace libmoe::cuda::sm90

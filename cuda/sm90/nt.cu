// Linear layers going forward, and the experts' second product: 2 m n k FLOPs, both operands rows of k.
#include "cuda/sm90/operations.h"
#include "cuda/sm90/product.h"

namespace libmoe::cuda::sm90 {

void product_nt(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p, int64_t slots) {
  if (wide_tiles(p.schedule.n, p.schedule.k)) run<256, false, false, 64>(state, p, slots);
  else run<128, false, false, 64>(state, p, slots);
}

}  // namespace libmoe::cuda::sm90

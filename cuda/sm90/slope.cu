// dOut down with all that backward makes of it: 2 S d f FLOPs, rows of dOut gathered. A tile is as wide as the pieces that parts are summed over.
#include "cuda/sm90/operations.h"
#include "cuda/sm90/product.h"

namespace libmoe::cuda::sm90 {

void product_slope(const DeviceState& state, const Product<bf16, SlopeEpilogue<bf16>>& p, int64_t slots) {
  run<kSlopeColumns, false, true, kSlopeColumns>(state, p, slots);
}

}  // namespace libmoe::cuda::sm90

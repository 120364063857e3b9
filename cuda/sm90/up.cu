// The experts' first product: 2 S d F FLOPs, rows of x gathered, activation applied to the sums.
#include "cuda/sm90/operations.h"
#include "cuda/sm90/product.h"

namespace libmoe::cuda::sm90 {

void product_up(const DeviceState& state, const Product<bf16, UpEpilogue<bf16>>& p, int64_t slots) {
  if (wide_tiles(p.schedule.pair ? 2 * p.schedule.n : p.schedule.n, p.schedule.k)) run<256, false, false, 64>(state, p, slots);
  else run<128, false, false, 64>(state, p, slots);
}

}  // namespace libmoe::cuda::sm90

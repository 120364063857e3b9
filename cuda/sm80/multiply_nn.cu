// a [m, k] times b [n, k]^T: linear layers forward, the down-projection of experts. Floors: engine.h.
#include "cuda/sm80/engine.h"
#include "cuda/sm80/multiply.h"

namespace libmoe::cuda::sm80 {

void multiply_nn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p) { multiply<false, false>(state, p); }

}  // namespace libmoe::cuda::sm80

// a [m, k] times b [k, n]: gradients of inputs, of experts too. Floors: engine.h.
#include "cuda/sm80/engine.h"
#include "cuda/sm80/multiply.h"

namespace libmoe::cuda::sm80 {

void multiply_nt(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p) { multiply<false, true>(state, p); }

}  // namespace libmoe::cuda::sm80

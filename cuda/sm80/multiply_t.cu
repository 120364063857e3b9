// a [k, m]^T times b: gradients of weights, of experts with the rows of an expert as inner size. Floors: engine.h.
#include "cuda/sm80/engine.h"
#include "cuda/sm80/multiply.h"

namespace libmoe::cuda::sm80 {

void multiply_tt(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p) { multiply<true, true>(state, p); }
// Rare: no layer asks for it.
void multiply_tn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p) { multiply<true, false>(state, p); }

}  // namespace libmoe::cuda::sm80

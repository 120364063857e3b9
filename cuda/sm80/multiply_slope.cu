// dOut times down, and in the epilogue the gradients of z and of the gate weights. Floors: engine.h; z read, dz and the activation written once.
#include "cuda/sm80/engine.h"
#include "cuda/sm80/multiply.h"

namespace libmoe::cuda::sm80 {

void multiply_slope(const DeviceState& state, const Product<bf16, SlopeEpilogue<bf16>>& p) { multiply<false, true>(state, p); }

}  // namespace libmoe::cuda::sm80

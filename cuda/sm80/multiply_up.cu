// The up-projection of experts: rows gathered by the loads, activation in the epilogue. Floors: engine.h, and z and the activation written once.
#include "cuda/sm80/engine.h"
#include "cuda/sm80/multiply.h"

namespace libmoe::cuda::sm80 {

void multiply_up(const DeviceState& state, const Product<bf16, UpEpilogue<bf16>>& p) { multiply<false, false>(state, p); }

}  // namespace libmoe::cuda::sm80

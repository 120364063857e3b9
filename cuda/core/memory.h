#pragma once
#include <cstdint>

#include "core/tensor.h"

namespace libmoe::cuda {

// Gives what the pools of all used devices keep back to the driver. Waits for them.
void trim();
// Bytes that the pool of a device keeps for reuse; 0 where it has not been used.
int64_t pooled_bytes(Device device);

}  // namespace libmoe::cuda

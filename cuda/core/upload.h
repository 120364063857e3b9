#pragma once
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

// Copies host memory aside and enqueues its way to the device: neither waits for the device nor needs `from` once it returns.
void enqueue_upload(DeviceState& state, void* to, const void* from, size_t bytes);

}  // namespace libmoe::cuda

#pragma once
// Bad values that only the device sees (an id outside its table, a NaN in a row). A kernel that meets one skips it and reports it here; the host learns of it when it
// next waits for the device, and then throws what the CPU would have thrown at once. Of several the earliest operation counts, and in it the lowest position.
#include <cstdint>

#include "cuda/core/runtime.h"

namespace libmoe::cuda {

// What a fault of an operation will say: "<what> must be from <low> to <high>; the value at <place> <position> is not", or with low > high
// "<what> is not finite at <place> <position>".
struct FaultText {
  const char* code = "";
  const char* what = "";
  int64_t low = 0, high = 0;
  const char* place = "position";
};

// Where the kernels of one operation report.
struct FaultSlot {
  unsigned long long* key = nullptr;
  unsigned long long operation = 0;

  // Position: of the value in its tensor, as the CPU counts it.
  __device__ void report(int64_t position) const {
    const unsigned long long place = position > 0xffffffffll ? 0xffffffffull : (unsigned long long)position;
    atomicMin(key, operation << 32 | place);
  }
};

FaultSlot fault_slot(DeviceState& state, const FaultText& text);

// Throws when the device has reported a fault. For the thread that reads from the device (Whole::staging_mutex). `key` is what was read from DeviceState::fault.
void throw_fault(DeviceState& state, unsigned long long key);

}  // namespace libmoe::cuda

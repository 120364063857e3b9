#pragma once
// What the CUDA backend is and why it is not usable, for `backend_of` and `inspect`. Without CUDA in the build only `compiled = false` is true.
#include <string>
#include <vector>

#include "core/backend.h"

namespace libmoe {

struct CudaDevice {
  int ordinal = 0;  // what CUDA calls it; our number is its place in the list
  std::string name;
  int major = 0, minor = 0, multiprocessors = 0;
  size_t memory_bytes = 0;
  bool emulated = false;
};

// A card that cannot be used, and why: the others can.
struct CudaLeftOut {
  int ordinal = 0;
  std::string name, why;
};

struct CudaStatus {
  bool compiled = false;
  int driver = 0, runtime = 0;      // 1000 * major + 10 * minor; 0: unknown
  std::string why;                  // empty when there is a usable device
  std::vector<CudaDevice> devices;
  std::vector<CudaLeftOut> left_out;
};

const CudaStatus& cuda_status();
// The table of all CUDA devices; called only when cuda_status() has some.
const Backend& cuda_backend();
// Bytes that the pool of a device keeps for reuse; 0 where it has not been used.
int64_t cuda_pooled_bytes(Device device);
// How often the host has waited for a CUDA device; 0 where it has not been used.
int64_t cuda_waits(Device device);

}  // namespace libmoe

#pragma once
// What the CUDA backend is and why it is not usable, for `backend_of` and `inspect`. Without CUDA in the build only `compiled = false` is true.
#include <string>
#include <vector>

#include "core/backend.h"

namespace libmoe {

struct CudaDevice {
  std::string name;
  int major = 0, minor = 0, multiprocessors = 0;
  size_t memory_bytes = 0;
  bool emulated = false;
};

struct CudaStatus {
  bool compiled = false;
  int driver = 0, runtime = 0;      // 1000 * major + 10 * minor; 0: unknown
  std::string why;                  // empty when there is a usable device
  std::vector<CudaDevice> devices;
};

const CudaStatus& cuda_status();
// The table of all CUDA devices; called only when cuda_status() has some.
const Backend& cuda_backend();
// How often the host has waited for a CUDA device. Called only when cuda_status() has it.
int64_t cuda_waits(int device);

}  // namespace libmoe

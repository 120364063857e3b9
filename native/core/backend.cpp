#include "core/backend.h"

#include "core/cuda.h"
#include "core/error.h"

namespace libmoe {

#ifndef LIBMOE_HAS_CUDA
const CudaStatus& cuda_status() {
  static const CudaStatus status = [] {
    CudaStatus s;
    s.why = "this binary was built without CUDA; install the prebuilt package, or build with nvcc on PATH (libmoe build --cuda ON)";
    return s;
  }();
  return status;
}
int64_t cuda_waits(Device) { return 0; }
int64_t cuda_pooled_bytes(Device) { return 0; }
#endif

const Backend& backend_of(Device device) {
  if (device.kind == DeviceKind::cpu && device.index == 0) return cpu_backend();
  const CudaStatus& cuda = cuda_status();
  if (device.kind == DeviceKind::cuda && !cuda.why.empty()) fail("ERR_LIBMOE_DEVICE", "no CUDA device can be used: " + cuda.why);
#ifdef LIBMOE_HAS_CUDA
  if (device.kind == DeviceKind::cuda && size_t(device.index) < cuda.devices.size()) return cuda_backend();
#endif
  std::string left_out;
  for (const CudaLeftOut& card : cuda.left_out) left_out += "; left out is " + card.name + " (CUDA device " + std::to_string(card.ordinal) + "): " + card.why;
  fail("ERR_LIBMOE_DEVICE", "there is no cuda:" + std::to_string(device.index) + "; this process sees " + std::to_string(cuda.devices.size()) + " (CUDA_VISIBLE_DEVICES limits them)" + left_out);
}

}  // namespace libmoe

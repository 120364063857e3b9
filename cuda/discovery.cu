// Which cards there are, and which can be used. Asks without making a context on any of them.
#include <string>

#include "core/cuda.h"
#include "cuda/core/runtime.h"

namespace libmoe {
namespace {

constexpr int kDriverNeeded = 13000;  // CUDA 13: driver 580 and newer

std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

// Why a card cannot be used; empty when it can.
std::string unfit(cudaError_t asked, const cudaDeviceProp& p, int ordinal) {
  if (asked != cudaSuccess) return std::string("the driver answers: ") + cudaGetErrorString(asked);
  if (p.major < 8) return "it has compute capability " + std::to_string(p.major) + "." + std::to_string(p.minor) + "; 8.0 (A100) or newer is needed";
  int pools = 0;
  if (cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, ordinal) != cudaSuccess || !pools) return "it has no memory pools (cudaMallocAsync)";
  return "";
}

CudaStatus look() {
  CudaStatus s;
  s.compiled = true;
  cudaDriverGetVersion(&s.driver);
  cudaRuntimeGetVersion(&s.runtime);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (s.driver != 0 && (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))) {
    s.why = "the driver is there, but no device is visible; see CUDA_VISIBLE_DEVICES (a card in MIG mode needs an instance)";
  } else if (s.driver == 0) {
    s.why = "no NVIDIA driver was found (libcuda.so.1); CUDA " + version_text(s.runtime) + " needs driver 580 or newer";
  } else if (error != cudaSuccess && s.driver < kDriverNeeded) {
    s.why = "the NVIDIA driver supports CUDA " + version_text(s.driver) + ", this binary needs " + version_text(s.runtime) +
            ": install driver 580 or newer, or the cuda-compat package on a data-centre card";
  } else if (error != cudaSuccess) {
    s.why = std::string("the NVIDIA driver answers: ") + cudaGetErrorString(error);
  }
  for (int i = 0; s.why.empty() && i < count; ++i) {
    cudaDeviceProp p{};
    const cudaError_t asked = cudaGetDeviceProperties(&p, i);
    const std::string name = asked == cudaSuccess ? p.name : "a card";
    if (const std::string why = unfit(asked, p, i); !why.empty()) {
      s.left_out.push_back({i, name, why});
      continue;
    }
    CudaDevice d;
    d.ordinal = i;
    d.name = name;
    d.major = p.major;
    d.minor = p.minor;
    d.multiprocessors = p.multiProcessorCount;
    d.memory_bytes = p.totalGlobalMem;
#ifdef LIBMOE_EMULATOR
    d.emulated = true;
#endif
    s.devices.push_back(d);
  }
  cudaGetLastError();
  if (s.why.empty() && s.devices.empty())
    for (const CudaLeftOut& card : s.left_out) s.why += (s.why.empty() ? "" : "; ") + card.name + " (CUDA device " + std::to_string(card.ordinal) + "): " + card.why;
  return s;
}

}  // namespace

const CudaStatus& cuda_status() {
  static const CudaStatus* status = new CudaStatus(look());
  return *status;
}

}  // namespace libmoe

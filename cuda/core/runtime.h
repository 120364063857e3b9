#pragma once
// What every op family of this backend stands on: the state of a device, checked calls, scratch memory in stream order, and launches.
// Operations only enqueue on the compute stream; the host waits in `download` and `synchronise` alone.
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "core/error.h"
#include "core/tensor.h"

namespace libmoe::cuda {

struct DeviceState {
  int index = 0;
  int multiprocessors = 0;
  int architecture = 80;    // 80 or 90: which tensor-core kernels run; LIBMOE_GPU_ARCH=80 chooses the older ones on a newer card
  size_t shared_bytes = 0;  // that one block may have
  size_t l2_bytes = 0;
  cudaStream_t compute = nullptr, communication = nullptr;
  unsigned long long* fault = nullptr;  // on the device: core/fault.h
};

// The state of a CUDA device, made at first use; makes it the calling thread's current device. Throws ERR_LIBMOE_DEVICE.
DeviceState& state_of(Device device);

// Throws ERR_LIBMOE_CUDA with the driver's words when a call failed; the binding adds operation and shapes.
void check(cudaError_t error, const char* what);

void* allocate(Device device, size_t bytes);
void release(Device device, void* data, size_t bytes);

// Memory that an operation needs while it runs. Freed in stream order: kernels that were enqueued before may still use it.
class Scratch {
 public:
  Scratch(const DeviceState& state, size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T> T* as() const { return static_cast<T*>(data_); }

 private:
  const DeviceState& state_;
  size_t bytes_;
  void* data_;
};

// Enqueues a kernel on the compute stream. A grid without blocks is no launch.
template <class... P, class... A>
void launch(const DeviceState& state, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  // Beyond 48 KiB, static shared memory included, a kernel has to ask.
  if (shared_bytes > 32 * 1024) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), "reserving shared memory for a kernel");
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = state.compute;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...), "launching a kernel");
}

constexpr int64_t blocks_for(int64_t items, int64_t per_block) { return (items + per_block - 1) / per_block; }
// Blocks of a kernel that strides over its items: enough for `per_multiprocessor` on each, never more than there is work for.
inline unsigned grid_for(const DeviceState& state, int64_t items, int64_t per_block, int per_multiprocessor = 16) {
  const int64_t wanted = blocks_for(items, per_block), most = int64_t(state.multiprocessors) * per_multiprocessor;
  return unsigned(wanted < most ? wanted : most);
}

// The dynamic shared memory of the running block.
#ifdef LIBMOE_EMULATOR
template <class T> inline T* dynamic_shared() { return reinterpret_cast<T*>(emulator::dynamic_shared()); }
#else
template <class T> __device__ inline T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char libmoe_dynamic_shared[];
  return reinterpret_cast<T*>(libmoe_dynamic_shared);
}
#endif

}  // namespace libmoe::cuda

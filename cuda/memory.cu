// Device memory in stream order, from the driver's pool.
#include <string>

#include "core/cuda.h"
#include "cuda/core/memory.h"
#include "cuda/core/whole.h"

namespace libmoe::cuda {
namespace {

std::string mebibytes(size_t bytes) { return std::to_string((bytes + (1 << 19)) >> 20) + " MiB"; }

void trim_pool(Whole& w) {
  drain(w);
  check(cudaMemPoolTrimTo(w.pool, 0), "trimming the memory pool");
}

}  // namespace

void* allocate(Device device, size_t bytes) {
  Whole& w = whole(device);
  void* p = nullptr;
  const size_t size = bytes ? bytes : 1;
  cudaError_t error = cudaMallocAsync(&p, size, w.compute);
  if (error == cudaErrorMemoryAllocation) {  // blocks of other sizes may lie unused in the pool
    cudaGetLastError();
    trim_pool(w);
    error = cudaMallocAsync(&p, size, w.compute);
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail("ERR_LIBMOE_OUT_OF_MEMORY", "could not allocate " + mebibytes(bytes) + " on cuda:" + std::to_string(device.index) + ": " + mebibytes(size_t(memory_counters(device).bytes.load())) +
                                         " in use by tensors, " + mebibytes(free) + " free of " + mebibytes(total) + "; use a smaller batch, gradient accumulation or recomputation");
  }
  check(error, "allocating device memory");
  return p;
}

void release(Device device, void* data, size_t) {
  // Called by destructors: at exit or after a failure of the device there may be nothing left to free from.
  try {
    if (cudaFreeAsync(data, whole(device).compute) != cudaSuccess) cudaGetLastError();
  } catch (const Error&) {
  }
}

void trim() {
  for (Whole* w : all_started()) {
    whole({DeviceKind::cuda, w->index});
    trim_pool(*w);
  }
}

int64_t pooled_bytes(Device device) {
  Whole* w = started(device);
  if (!w) return 0;
  uint64_t reserved = 0, used = 0;
  check(cudaMemPoolGetAttribute(w->pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "asking the memory pool");
  check(cudaMemPoolGetAttribute(w->pool, cudaMemPoolAttrUsedMemCurrent, &used), "asking the memory pool");
  return reserved > used ? int64_t(reserved - used) : 0;
}

Scratch::Scratch(const DeviceState& state, size_t bytes) : state_(state), bytes_(bytes), data_(allocate({DeviceKind::cuda, state.index}, bytes)) {}
Scratch::~Scratch() { release({DeviceKind::cuda, state_.index}, data_, bytes_); }

}  // namespace libmoe::cuda

// The host side of the emulated device. Memory comes poisoned with NaN patterns between two guard zones; a kernel that wrote outside its memory is
// found when the block is freed. LIBMOE_EMULATED_ARCH=80|90 says what the device is (default 80), LIBMOE_EMULATED_MEMORY how many bytes it has,
// LIBMOE_EMULATED_DEVICES how many such devices there are (default 1).
#include "cuda_runtime.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

struct EmulatedEvent {
  std::chrono::steady_clock::time_point at;
};

namespace {

constexpr size_t kGuard = 512;
constexpr unsigned char kGuardByte = 0xc5;

std::mutex memory_mutex;
std::map<void*, size_t> blocks;
size_t used = 0;
cudaError_t last_error = cudaSuccess;
std::string last_text;

size_t capacity() {
  static const size_t bytes = [] {
    const char* text = std::getenv("LIBMOE_EMULATED_MEMORY");
    return text ? size_t(std::strtoull(text, nullptr, 10)) : size_t(8) << 30;
  }();
  return bytes;
}
int architecture() {
  static const int value = [] {
    const char* text = std::getenv("LIBMOE_EMULATED_ARCH");
    return text ? std::atoi(text) : 80;
  }();
  return value;
}
int devices() {
  static const int count = [] {
    const char* text = std::getenv("LIBMOE_EMULATED_DEVICES");
    return text ? std::atoi(text) : 1;
  }();
  return count;
}
cudaError_t set(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}

}  // namespace

cudaError_t emulator::launched(const char* fault) {
  if (!fault) return cudaSuccess;
  last_text = fault;
  return set(cudaErrorLaunchFailure);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = devices();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device >= 0 && device < devices() ? cudaSuccess : set(cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= devices()) return set(cudaErrorInvalidDevice);
  *p = {};
  std::snprintf(p->name, sizeof p->name, "emulated sm_%d", architecture());
  p->totalGlobalMem = capacity();
  p->major = architecture() / 10;
  p->minor = architecture() % 10;
  p->multiProcessorCount = 3;
  p->sharedMemPerBlockOptin = architecture() >= 90 ? 232448 : 166912;
  p->l2CacheSize = 40 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (cudaError_t e = cudaGetDeviceProperties(&p, device)) return e;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t e = last_error;
  last_error = cudaSuccess;
  return e;
}
const char* cudaGetErrorName(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    default: return "cudaErrorLaunchFailure";
  }
}
const char* cudaGetErrorString(cudaError_t e) { return e == cudaErrorLaunchFailure ? last_text.c_str() : cudaGetErrorName(e); }

cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) {
  std::lock_guard<std::mutex> lock(memory_mutex);
  if (used + bytes > capacity()) {
    *p = nullptr;
    return set(cudaErrorMemoryAllocation);
  }
  const size_t size = (bytes + 255) / 256 * 256;
  auto* block = static_cast<unsigned char*>(std::aligned_alloc(1024, (size + 2 * kGuard + 2047) / 1024 * 1024));
  if (!block) return set(cudaErrorMemoryAllocation);
  unsigned char* data = block + kGuard;  // aligned to 512, as cudaMalloc promises at least 256
  std::memset(block, kGuardByte, kGuard);
  std::memset(data, 0xff, bytes);
  std::memset(data + bytes, kGuardByte, kGuard);
  blocks[data] = bytes;
  used += bytes;
  *p = data;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  if (!p) return cudaSuccess;
  std::lock_guard<std::mutex> lock(memory_mutex);
  const auto found = blocks.find(p);
  if (found == blocks.end()) return set(cudaErrorInvalidValue);
  auto* data = static_cast<unsigned char*>(p);
  const size_t bytes = found->second;
  for (size_t i = 0; i < kGuard; ++i) {
    if (data[-1 - long(i)] == kGuardByte && data[bytes + i] == kGuardByte) continue;
    std::fprintf(stderr, "CUDA emulator: a kernel wrote outside a block of %zu bytes (%s it)\n", bytes, data[bytes + i] == kGuardByte ? "before" : "behind");
    std::abort();
  }
  std::memset(data, 0xff, bytes);
  used -= bytes;
  blocks.erase(found);
  std::free(data - kGuard);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  *p = std::malloc(bytes);
  return *p ? cudaSuccess : set(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes) std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind, cudaStream_t) {
  for (size_t r = 0; r < height; ++r) std::memmove(static_cast<char*>(to) + r * to_pitch, static_cast<const char*>(from) + r * from_pitch, width);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  if (bytes) std::memset(p, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = capacity();
  *free = capacity() - used;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<uint64_t*>(value) = used;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent{};
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->at = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

// The host side of the emulated devices. Memory comes poisoned with NaN patterns between two guard zones; a kernel that wrote outside its memory is
// found when the block is freed. What a driver does late or rarely is done at once and always: a copy to the device from memory that is not page-locked may wait for the
// stream, so it is refused. Set by
//   LIBMOE_EMULATED_ARCH=80|90           what the device is (default 80), or a list such as 70,80,90: several devices
//   LIBMOE_EMULATED_DEVICES=N            that many of the one kind (default 1)
//   LIBMOE_EMULATED_MEMORY=BYTES         how much each has
//   LIBMOE_EMULATED_FAIL=CALL:N:ERROR    the Nth call of that function answers ERROR (a number)
//   LIBMOE_EMULATED_REPORT=1             prints at exit which devices have a context, and what the host still holds
#include "cuda_runtime.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

struct EmulatedEvent {
  std::chrono::steady_clock::time_point at;
};

namespace {

constexpr size_t kGuard = 512;
constexpr unsigned char kGuardByte = 0xc5;

struct Block {
  size_t bytes;
  int device;
};
struct Pool {
  size_t used = 0, reserved = 0;  // what was freed stays reserved until it is trimmed
};

std::mutex mutex;  // of everything below but what is of a thread
std::map<void*, Block> blocks;
std::map<void*, size_t> page_locked;
std::map<const void*, int> shared_limits;
std::set<int> contexts;
int events = 0, streams = 0;
std::map<std::string, int> calls;
Pool pools[16];

// As the driver has them, of each host thread.
thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_text;

size_t capacity() {
  static const size_t bytes = [] {
    const char* text = std::getenv("LIBMOE_EMULATED_MEMORY");
    return text ? size_t(std::strtoull(text, nullptr, 10)) : size_t(8) << 30;
  }();
  return bytes;
}
const std::vector<int>& architectures() {
  static const std::vector<int> list = [] {
    const char* text = std::getenv("LIBMOE_EMULATED_ARCH");
    std::vector<int> found;
    for (const char* at = text && *text ? text : "80"; at; at = std::strchr(at, ',') ? std::strchr(at, ',') + 1 : nullptr) found.push_back(std::atoi(at));
    if (const char* count = std::getenv("LIBMOE_EMULATED_DEVICES"); count && found.size() == 1) found.resize(size_t(std::atoi(count)), found[0]);
    return found;
  }();
  return list;
}
bool exists(int device) { return device >= 0 && size_t(device) < architectures().size(); }
cudaError_t set(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}

void report() {
  std::string list;
  for (int d : contexts) list += " " + std::to_string(d);
  std::fprintf(stderr, "emulator: contexts on%s; %d events, %d streams, %zu page-locked blocks\n", list.empty() ? " none" : list.c_str(), events, streams, page_locked.size());
}
[[maybe_unused]] const bool reports = std::getenv("LIBMOE_EMULATED_REPORT") && std::atexit(report) == 0;

// What LIBMOE_EMULATED_FAIL has this call answer.
cudaError_t wanted_failure(const char* call) {
  static const char* const text = std::getenv("LIBMOE_EMULATED_FAIL");
  if (!text) return cudaSuccess;
  const size_t length = std::strlen(call);
  if (std::strncmp(text, call, length) != 0 || text[length] != ':') return cudaSuccess;
  int number = 0, error = 0;
  std::sscanf(text + length, ":%d:%d", &number, &error);
  std::lock_guard<std::mutex> lock(mutex);
  return ++calls[call] == number ? set(cudaError_t(error)) : cudaSuccess;
}

// Whatever works with the current device makes its context.
void need_context() {
  std::lock_guard<std::mutex> lock(mutex);
  contexts.insert(current_device);
}

bool is_page_locked(const void* p, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  auto found = page_locked.upper_bound(const_cast<void*>(p));
  if (found == page_locked.begin()) return false;
  --found;
  return static_cast<const char*>(p) + bytes <= static_cast<const char*>(found->first) + found->second;
}

constexpr int kPlainShared = 48 * 1024;
int most_shared(int device) { return architectures()[size_t(device)] >= 90 ? 232448 : 166912; }

}  // namespace

cudaError_t emulator::reserve_shared(const void* kernel, int bytes) {
  need_context();
  if (bytes > most_shared(current_device)) return set(cudaErrorInvalidValue);
  std::lock_guard<std::mutex> lock(mutex);
  shared_limits[kernel] = bytes;
  return cudaSuccess;
}

cudaError_t emulator::launched(const void* kernel, size_t shared_bytes, const std::function<std::string()>& run) {
  need_context();
  if (cudaError_t e = wanted_failure("cudaLaunchKernelEx")) return e;
  {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = shared_limits.find(kernel);
    if (shared_bytes > size_t(std::max(kPlainShared, found == shared_limits.end() ? 0 : found->second))) return set(cudaErrorInvalidValue);
  }
  last_text = run();
  return last_text.empty() ? cudaSuccess : set(cudaErrorLaunchFailure);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = int(architectures().size());
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {  // since CUDA 12 this makes the context
  if (!exists(device)) return set(cudaErrorInvalidDevice);
  current_device = device;
  need_context();
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (!exists(device)) return set(cudaErrorInvalidDevice);
  const int architecture = architectures()[size_t(device)];
  *p = {};
  std::snprintf(p->name, sizeof p->name, "emulated sm_%d", architecture);
  p->totalGlobalMem = capacity();
  p->major = architecture / 10;
  p->minor = architecture % 10;
  p->multiProcessorCount = 3;
  p->sharedMemPerBlockOptin = size_t(most_shared(device));
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
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    default: return "another CUDA error";
  }
}
const char* cudaGetErrorString(cudaError_t e) { return e == cudaErrorLaunchFailure ? last_text.c_str() : cudaGetErrorName(e); }

cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) {
  need_context();
  std::lock_guard<std::mutex> lock(mutex);
  Pool& pool = pools[current_device];
  if (pool.used + bytes > capacity()) {
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
  blocks[data] = {bytes, current_device};
  pool.used += bytes;
  pool.reserved = std::max(pool.reserved, pool.used);
  *p = data;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  if (!p) return cudaSuccess;
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = blocks.find(p);
  if (found == blocks.end()) return set(cudaErrorInvalidValue);
  auto* data = static_cast<unsigned char*>(p);
  const size_t bytes = found->second.bytes;
  for (size_t i = 0; i < kGuard; ++i) {
    if (data[-1 - long(i)] == kGuardByte && data[bytes + i] == kGuardByte) continue;
    std::fprintf(stderr, "CUDA emulator: a kernel wrote outside a block of %zu bytes (%s it)\n", bytes, data[bytes + i] == kGuardByte ? "before" : "behind");
    std::abort();
  }
  std::memset(data, 0xff, bytes);
  pools[found->second.device].used -= bytes;
  blocks.erase(found);
  std::free(data - kGuard);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  need_context();
  if (cudaError_t e = wanted_failure("cudaHostAlloc")) return e;
  *p = std::malloc(bytes);
  if (!*p) return set(cudaErrorMemoryAllocation);
  std::lock_guard<std::mutex> lock(mutex);
  page_locked[*p] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!page_locked.erase(p)) return set(cudaErrorInvalidValue);
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  need_context();
  if (cudaError_t e = wanted_failure("cudaMemcpyAsync")) return e;
  if (kind == cudaMemcpyHostToDevice && bytes && !is_page_locked(from, bytes)) return set(cudaErrorInvalidValue);
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
  need_context();
  std::lock_guard<std::mutex> lock(mutex);
  *total = capacity();
  *free = capacity() - pools[current_device].used;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  if (!exists(device)) return set(cudaErrorInvalidDevice);
  *pool = reinterpret_cast<cudaMemPool_t>(&pools[device]);
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  std::lock_guard<std::mutex> lock(mutex);
  const Pool& p = *reinterpret_cast<Pool*>(pool);
  *static_cast<uint64_t*>(value) = attribute == cudaMemPoolAttrReservedMemCurrent ? p.reserved : p.used;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t) {
  std::lock_guard<std::mutex> lock(mutex);
  Pool& p = *reinterpret_cast<Pool*>(pool);
  p.reserved = p.used;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  need_context();
  std::lock_guard<std::mutex> lock(mutex);
  *stream = reinterpret_cast<cudaStream_t>(uintptr_t(++streams));
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  std::lock_guard<std::mutex> lock(mutex);
  --streams;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return wanted_failure("cudaStreamSynchronize"); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  need_context();
  if (cudaError_t e = wanted_failure("cudaEventCreateWithFlags")) return e;
  *event = new EmulatedEvent{};
  std::lock_guard<std::mutex> lock(mutex);
  ++events;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  if (cudaError_t e = wanted_failure("cudaEventRecord")) return e;
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
  std::lock_guard<std::mutex> lock(mutex);
  --events;
  return cudaSuccess;
}

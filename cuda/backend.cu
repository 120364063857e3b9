// The device itself: discovery, memory in stream order, transfers, faults. Byte floor of a copy within the device: each byte read once and written once.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "core/cuda.h"
#include "cuda/core/fault.h"
#include "cuda/core/runtime.h"
#include "cuda/core/tables.h"
#include "cuda/core/upload.h"

namespace libmoe {
namespace cuda {
namespace {

constexpr int kDriverNeeded = 13000;  // CUDA 13: driver 580 and newer
constexpr size_t kStaging = size_t(4) << 20;
constexpr size_t kSlot = size_t(256) << 10;  // of the ring through which uploads go
constexpr int kSlots = 32;

std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

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
  cudaGetLastError();
  for (int i = 0; s.why.empty() && i < count; ++i) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    if (p.major < 8) {
      s.why = std::string(p.name) + " has compute capability " + std::to_string(p.major) + "." + std::to_string(p.minor) + "; 8.0 (A100) or newer is needed";
      s.devices.clear();
      break;
    }
    CudaDevice d;
    d.name = p.name;
    d.major = p.major;
    d.minor = p.minor;
    d.multiprocessors = p.multiProcessorCount;
    d.memory_bytes = p.totalGlobalMem;
#ifdef LIBMOE_EMULATOR
    d.emulated = true;
#endif
    s.devices.push_back(d);
  }
  return s;
}

// All that the host keeps about a device beyond what kernels launches need.
struct Whole : DeviceState {
  cudaMemPool_t pool = nullptr;
  cudaEvent_t order = nullptr;
  char* staging = nullptr;             // page-locked: the fault key and small downloads
  char* ring = nullptr;                // page-locked: kSlots of kSlot bytes, used in turn
  cudaEvent_t slot_free[kSlots] = {};  // when the device has fetched a slot's bytes
  uint64_t uploads = 0;
  std::atomic<int64_t> waits{0};       // of the host for the compute stream
  std::mutex mutex, communication_mutex, ring_mutex;  // of the staging memory; of `order` and the tickets; of the ring
  std::map<uint64_t, cudaEvent_t> tickets;
  uint64_t last_ticket = 0;
  std::deque<FaultText> texts;         // of the operations first_text, first_text + 1 …
  unsigned long long first_text = 0, operations = 0;
};
constexpr size_t kTexts = 1 << 16;

std::unique_ptr<Whole> start(int index) {
  auto w = std::make_unique<Whole>();
  w->index = index;
  check(cudaSetDevice(index), "choosing the device");
  cudaDeviceProp p;
  check(cudaGetDeviceProperties(&p, index), "asking for the device's properties");
  w->multiprocessors = p.multiProcessorCount;
  w->shared_bytes = p.sharedMemPerBlockOptin;
  w->l2_bytes = size_t(p.l2CacheSize);
  w->architecture = p.major == 9 && p.minor == 0 ? 90 : 80;
  if (const char* forced = std::getenv("LIBMOE_GPU_ARCH")) {
    const std::string wanted = forced;
    if (wanted != "80" && wanted != "90") fail("ERR_LIBMOE_ENVIRONMENT", "LIBMOE_GPU_ARCH expects 80 or 90, got \"" + wanted + "\"");
    if (wanted == "90" && w->architecture != 90) fail("ERR_LIBMOE_ENVIRONMENT", std::string("LIBMOE_GPU_ARCH=90, but ") + p.name + " is no Hopper card; unset it");
    w->architecture = std::atoi(forced);
  }
  check(cudaStreamCreateWithPriority(&w->compute, cudaStreamNonBlocking, 0), "making the compute stream");
  check(cudaStreamCreateWithPriority(&w->communication, cudaStreamNonBlocking, -1), "making the communication stream");
  check(cudaEventCreateWithFlags(&w->order, cudaEventDisableTiming), "making an event");
  check(cudaDeviceGetDefaultMemPool(&w->pool, index), "asking for the memory pool");
  uint64_t keep = ~uint64_t(0);  // freed memory stays in the pool until trim()
  check(cudaMemPoolSetAttribute(w->pool, cudaMemPoolAttrReleaseThreshold, &keep), "setting up the memory pool");
  void* p_fault = nullptr;
  check(cudaMallocAsync(&p_fault, 8, w->compute), "allocating the fault word");
  w->fault = static_cast<unsigned long long*>(p_fault);
  check(cudaMemsetAsync(w->fault, 0xff, 8, w->compute), "clearing the fault word");
  void* staging = nullptr;
  check(cudaHostAlloc(&staging, kStaging, cudaHostAllocDefault), "allocating page-locked memory");
  w->staging = static_cast<char*>(staging);
  void* ring = nullptr;
  check(cudaHostAlloc(&ring, kSlot * kSlots, cudaHostAllocDefault), "allocating page-locked memory");
  w->ring = static_cast<char*>(ring);
  for (cudaEvent_t& event : w->slot_free) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  return w;
}

Whole& whole(Device device) {
  static std::mutex mutex;
  static auto* states = new std::unordered_map<int, std::unique_ptr<Whole>>;  // outlives late finalizers
  static thread_local int chosen = -1;
  static thread_local Whole* last = nullptr;
  if (chosen == device.index) return *last;
  std::lock_guard<std::mutex> lock(mutex);
  chosen = -1;  // should what follows fail
  auto& slot = (*states)[device.index];
  if (!slot) slot = start(device.index);
  check(cudaSetDevice(device.index), "choosing the device");
  chosen = device.index;
  last = slot.get();
  return *last;
}

// Until the device has done all that was enqueued on the compute stream.
void drain(Whole& w) {
  ++w.waits;
  check(cudaStreamSynchronize(w.compute), "waiting for the device");
}

void wait(Whole& w) {
  auto* key = reinterpret_cast<unsigned long long*>(w.staging);
  check(cudaMemcpyAsync(key, w.fault, 8, cudaMemcpyDeviceToHost, w.compute), "reading the fault word");
  drain(w);
  throw_fault(w, *key);
}

std::string megabytes(size_t bytes) { return std::to_string((bytes + (1 << 19)) >> 20) + " MiB"; }

void upload(Device device, void* to, const void* from, size_t bytes) {
  enqueue_upload(whole(device), to, from, bytes);
}

// Small ones go through page-locked memory, so that none waits before the last is under way.
void download_all(Device device, const std::vector<HostCopy>& list) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.mutex);
  size_t used = 8;
  std::vector<HostCopy> staged;
  for (const HostCopy& c : list) {
    if (c.bytes == 0) continue;
    const bool fits = used + c.bytes <= kStaging;
    check(cudaMemcpyAsync(fits ? w.staging + used : c.to, c.from, c.bytes, cudaMemcpyDeviceToHost, w.compute), "copying to the host");
    if (!fits) continue;
    staged.push_back({c.to, w.staging + used, c.bytes});
    used += (c.bytes + 15) / 16 * 16;
  }
  wait(w);
  for (const HostCopy& c : staged) std::memcpy(c.to, c.from, c.bytes);
}

void download(Device device, void* to, const void* from, size_t bytes) { download_all(device, {{to, from, bytes}}); }

void order(Device device, bool compute_first) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.communication_mutex);
  check(cudaEventRecord(w.order, compute_first ? w.compute : w.communication), "recording an event");
  check(cudaStreamWaitEvent(compute_first ? w.communication : w.compute, w.order, 0), "ordering the streams");
}

uint64_t mark_communication(Device device) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.communication_mutex);
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  check(cudaEventRecord(event, w.communication), "recording an event");
  w.tickets.emplace(++w.last_ticket, event);
  return w.last_ticket;
}

// Tickets are passed in order, so that those before this one go with it.
bool communication_reached(Device device, uint64_t ticket) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.communication_mutex);
  const auto found = w.tickets.find(ticket);
  if (found == w.tickets.end()) return true;
  const cudaError_t state = cudaEventQuery(found->second);
  if (state == cudaErrorNotReady) return false;
  check(state, "running a collective");
  for (auto it = w.tickets.begin(); it != w.tickets.end() && it->first <= ticket; it = w.tickets.erase(it)) check(cudaEventDestroy(it->second), "freeing an event");
  return true;
}

Backend make() {
  Backend b;
  b.name = "cuda";
  b.allocate = allocate;
  b.release = release;
  b.copy = [](Device d, void* to, const void* from, size_t bytes) {
    if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, whole(d).compute), "copying within the device");
  };
  b.upload = upload;
  b.download = download;
  b.download_all = download_all;
  b.clear = [](Device d, void* data, size_t bytes) {
    if (bytes) check(cudaMemsetAsync(data, 0, bytes, whole(d).compute), "clearing memory");
  };
  b.synchronise = [](Device d) {
    Whole& w = whole(d);
    std::lock_guard<std::mutex> lock(w.mutex);
    wait(w);
  };
  b.trim = [] {
    for (int i = 0; i < int(cuda_status().devices.size()); ++i) {
      Whole& w = whole({DeviceKind::cuda, i});
      drain(w);
      check(cudaMemPoolTrimTo(w.pool, 0), "trimming the memory pool");
    }
  };
  b.communication_stream = [](Device d) -> void* { return whole(d).communication; };
  b.begin_communication = [](Device d) { order(d, true); };
  b.end_communication = [](Device d) { order(d, false); };
  b.mark_communication = mark_communication;
  b.communication_reached = communication_reached;
  b.mark = [](Device d) -> void* {
    Whole& w = whole(d);
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, 0), "making an event");
    check(cudaEventRecord(event, w.compute), "recording an event");
    return event;
  };
  b.milliseconds = [](Device d, void* from, void* to) {
    whole(d);
    float ms = 0;
    check(cudaEventSynchronize(static_cast<cudaEvent_t>(to)), "waiting for an event");
    check(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to)), "reading device time");
    return double(ms);
  };
  b.drop_mark = [](Device d, void* event) {
    whole(d);
    check(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "freeing an event");
  };
  fill(b);
  return b;
}

}  // namespace

DeviceState& state_of(Device device) { return whole(device); }

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) fail("ERR_LIBMOE_OUT_OF_MEMORY", std::string(what) + ": the device has no memory left; use a smaller batch or gradient accumulation");
  fail("ERR_LIBMOE_CUDA", std::string(what) + " failed: " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) +
                              "). A fault inside a kernel shows at a later call: CUDA_LAUNCH_BLOCKING=1 names the right one");
}

// A copy straight from pageable memory may wait for the stream: the bytes go through page-locked memory instead.
void enqueue_upload(DeviceState& state, void* to, const void* from, size_t bytes) {
  auto& w = static_cast<Whole&>(state);
  std::lock_guard<std::mutex> lock(w.ring_mutex);
  for (size_t done = 0; done < bytes; done += kSlot) {
    const int slot = int(w.uploads % kSlots);
    const size_t size = std::min(kSlot, bytes - done);
    if (w.uploads++ >= kSlots) check(cudaEventSynchronize(w.slot_free[slot]), "waiting for an earlier upload");
    char* aside = w.ring + size_t(slot) * kSlot;
    std::memcpy(aside, static_cast<const char*>(from) + done, size);
    check(cudaMemcpyAsync(static_cast<char*>(to) + done, aside, size, cudaMemcpyHostToDevice, w.compute), "copying to the device");
    check(cudaEventRecord(w.slot_free[slot], w.compute), "recording an event");
  }
}

void* allocate(Device device, size_t bytes) {
  Whole& w = whole(device);
  void* p = nullptr;
  const size_t size = bytes ? bytes : 1;
  cudaError_t error = cudaMallocAsync(&p, size, w.compute);
  if (error == cudaErrorMemoryAllocation) {  // blocks of other sizes may lie unused in the pool
    cudaGetLastError();
    drain(w);
    check(cudaMemPoolTrimTo(w.pool, 0), "trimming the memory pool");
    error = cudaMallocAsync(&p, size, w.compute);
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail("ERR_LIBMOE_OUT_OF_MEMORY", "could not allocate " + megabytes(bytes) + " on cuda:" + std::to_string(device.index) + ": " + megabytes(size_t(memory_counters(device).bytes.load())) +
                                         " in use by tensors, " + megabytes(free) + " free of " + megabytes(total) + "; use a smaller batch, gradient accumulation or recomputation");
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

Scratch::Scratch(const DeviceState& state, size_t bytes) : state_(state), bytes_(bytes), data_(allocate({DeviceKind::cuda, state.index}, bytes)) {}
Scratch::~Scratch() { release({DeviceKind::cuda, state_.index}, data_, bytes_); }

FaultSlot fault_slot(DeviceState& state, const FaultText& text) {
  auto& w = static_cast<Whole&>(state);
  if (w.texts.size() == kTexts) {
    w.texts.pop_front();
    ++w.first_text;
  }
  w.texts.push_back(text);
  return {w.fault, w.operations++};
}

void throw_fault(DeviceState& state, unsigned long long key) {
  if (key == ~0ull) return;
  auto& w = static_cast<Whole&>(state);
  check(cudaMemsetAsync(w.fault, 0xff, 8, w.compute), "clearing the fault word");
  // Of an operation's number the device keeps the lower half.
  const unsigned long long operation = (w.operations & ~0xffffffffull) | key >> 32, position = key & 0xffffffffull;
  if (operation < w.first_text || operation >= w.first_text + w.texts.size())
    fail("ERR_LIBMOE_ARGUMENT", "an operation long ago met a value out of its range at position " + std::to_string(position) + "; read results more often to learn which");
  const FaultText& t = w.texts[size_t(operation - w.first_text)];
  if (t.low > t.high) fail(t.code, std::string(t.what) + " is not finite at " + t.place + " " + std::to_string(position));
  fail(t.code, std::string(t.what) + " must be from " + std::to_string(t.low) + " to " + std::to_string(t.high) + "; the value at " + t.place + " " + std::to_string(position) + " is not");
}

}  // namespace cuda

const CudaStatus& cuda_status() {
  static const CudaStatus* status = new CudaStatus(cuda::look());
  return *status;
}

int64_t cuda_waits(int device) { return cuda::whole({DeviceKind::cuda, device}).waits; }

const Backend& cuda_backend() {
  static const Backend* backend = new Backend(cuda::make());
  return *backend;
}

}  // namespace libmoe

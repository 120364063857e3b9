// The state of each device that is used: made at the first use, current on the thread that asks for it.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/cuda.h"
#include "cuda/core/whole.h"

namespace libmoe::cuda {
namespace {

std::mutex states_mutex;
std::unordered_map<int, std::unique_ptr<Whole>>& states() {
  static auto* all = new std::unordered_map<int, std::unique_ptr<Whole>>;  // outlives late finalizers
  return *all;
}

char* page_locked(size_t bytes) {
  void* p = nullptr;
  check(cudaHostAlloc(&p, bytes, cudaHostAllocDefault), "allocating page-locked memory");
  return static_cast<char*>(p);
}

std::unique_ptr<Whole> start(int index) {
  auto w = std::make_unique<Whole>();
  w->index = index;
  w->ordinal = cuda_status().devices[size_t(index)].ordinal;
  check(cudaSetDevice(w->ordinal), "choosing the device");
  cudaDeviceProp p;
  check(cudaGetDeviceProperties(&p, w->ordinal), "asking for the device's properties");
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
  w->order = Event(cudaEventDisableTiming);
  check(cudaDeviceGetDefaultMemPool(&w->pool, w->ordinal), "asking for the memory pool");
  uint64_t keep = ~uint64_t(0);  // freed memory stays in the pool until trim()
  check(cudaMemPoolSetAttribute(w->pool, cudaMemPoolAttrReleaseThreshold, &keep), "setting up the memory pool");
  void* fault = nullptr;
  check(cudaMallocAsync(&fault, 8, w->compute), "allocating the fault word");
  w->fault = static_cast<unsigned long long*>(fault);
  check(cudaMemsetAsync(w->fault, 0xff, 8, w->compute), "clearing the fault word");
  w->staging = page_locked(kStaging);
  w->ring = page_locked(kSlot * kSlots);
  for (Event& event : w->slot_free) event = Event(cudaEventDisableTiming);
  return w;
}

// Errors of what the device did: the call that hears of one is seldom the call that enqueued it, and the context is lost.
bool from_the_device(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
      return true;
    default:
      return false;
  }
}

}  // namespace

Whole::~Whole() {
  if (fault) cudaFreeAsync(fault, compute);
  if (staging) cudaFreeHost(staging);
  if (ring) cudaFreeHost(ring);
  if (communication) cudaStreamDestroy(communication);
  if (compute) cudaStreamDestroy(compute);
  cudaGetLastError();
}

void drain(Whole& w) {
  ++w.waits;
  check(cudaStreamSynchronize(w.compute), "waiting for the device");
}

Whole& whole(Device device) {
  static thread_local int chosen = -1;
  static thread_local Whole* last = nullptr;
  if (chosen == device.index) return *last;
  std::lock_guard<std::mutex> lock(states_mutex);
  chosen = -1;  // should what follows fail
  auto& slot = states()[device.index];
  if (!slot) slot = start(device.index);
  check(cudaSetDevice(slot->ordinal), "choosing the device");
  chosen = device.index;
  last = slot.get();
  return *last;
}

Whole* started(Device device) {
  std::lock_guard<std::mutex> lock(states_mutex);
  const auto found = states().find(device.index);
  return found == states().end() ? nullptr : found->second.get();
}

std::vector<Whole*> all_started() {
  std::lock_guard<std::mutex> lock(states_mutex);
  std::vector<Whole*> list;
  for (const auto& [index, state] : states())
    if (state) list.push_back(state.get());
  return list;
}

DeviceState& state_of(Device device) { return whole(device); }

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) fail("ERR_LIBMOE_OUT_OF_MEMORY", std::string(what) + ": the device has no memory left; use a smaller batch or gradient accumulation");
  fail("ERR_LIBMOE_CUDA", std::string(what) + " failed: " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")" +
                              (from_the_device(error) ? ". It happened in work that was enqueued before: CUDA_LAUNCH_BLOCKING=1 names the operation. The device is lost to this process: start it again" : ""));
}

}  // namespace libmoe::cuda

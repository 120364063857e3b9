#pragma once
// What the host keeps about a device, and who may touch it. Several threads of one process (Node's worker threads, the threads of communicators) use one device:
//   per process  the list of devices (cuda_status, read-only once made) and the table of states, under a mutex of its own;
//   per device   everything in Whole: its streams, pool and page-locked memory, and the faults. Each mutable part names the mutex that guards it. A fault belongs to the
//                device: the thread that reads from it next throws it, whichever thread enqueued the operation.
//   per thread   which device is current, as the CUDA runtime has it: whole() sets it.
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "cuda/core/fault.h"
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

// An event that goes with its owner.
class Event {
 public:
  Event() = default;
  explicit Event(unsigned flags) { check(cudaEventCreateWithFlags(&event_, flags), "making an event"); }
  ~Event() {
    if (event_ && cudaEventDestroy(event_) != cudaSuccess) cudaGetLastError();
  }
  Event(Event&& other) noexcept : event_(other.release()) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  void record(cudaStream_t stream) const { check(cudaEventRecord(event_, stream), "recording an event"); }
  cudaEvent_t get() const { return event_; }
  cudaEvent_t release() { return std::exchange(event_, nullptr); }

 private:
  cudaEvent_t event_ = nullptr;
};

constexpr size_t kStaging = size_t(4) << 20;
constexpr size_t kSlot = size_t(256) << 10;  // of the ring through which uploads go
constexpr int kSlots = 32;

// Made at first use, lives as long as the process. What is constant after start() needs no lock.
struct Whole : DeviceState {
  Whole() = default;
  ~Whole();  // of a state whose start failed
  Whole(const Whole&) = delete;
  Whole& operator=(const Whole&) = delete;

  int ordinal = 0;  // CUDA's number of the device; `index` is ours, which leaves out what cannot be used
  cudaMemPool_t pool = nullptr;

  std::atomic<int64_t> waits{0};  // of the host for the compute stream

  std::mutex staging_mutex;
  char* staging = nullptr;  // page-locked: the fault key and small downloads

  std::mutex ring_mutex;
  char* ring = nullptr;      // page-locked: kSlots of kSlot bytes, used in turn
  Event slot_free[kSlots];   // when the device has fetched a slot's bytes
  uint64_t uploads = 0;

  std::mutex communication_mutex;
  Event order;
  std::map<uint64_t, Event> tickets;
  uint64_t last_ticket = 0;

  std::mutex fault_mutex;
  std::deque<FaultText> texts;  // of the operations first_text, first_text + 1 …
  unsigned long long first_text = 0, operations = 0;
};

// Waits until the device has done all that was enqueued on the compute stream.
void drain(Whole& w);

// The state of a device, made at first use; makes it the calling thread's current device.
Whole& whole(Device device);
// The same if it has been used in this process, else null: a question must not make a context, which takes memory of the card.
Whole* started(Device device);
// Those that have been used.
std::vector<Whole*> all_started();

}  // namespace libmoe::cuda

#include "cuda/core/upload.h"

#include <algorithm>
#include <cstring>

#include "cuda/core/whole.h"

namespace libmoe::cuda {

// A copy straight from pageable memory may wait for the stream: the bytes go through page-locked memory instead.
void enqueue_upload(DeviceState& state, void* to, const void* from, size_t bytes) {
  auto& w = static_cast<Whole&>(state);
  std::lock_guard<std::mutex> lock(w.ring_mutex);
  for (size_t done = 0; done < bytes; done += kSlot) {
    const int slot = int(w.uploads % kSlots);
    const size_t size = std::min(kSlot, bytes - done);
    if (w.uploads++ >= kSlots) check(cudaEventSynchronize(w.slot_free[slot].get()), "waiting for an earlier upload");
    char* aside = w.ring + size_t(slot) * kSlot;
    std::memcpy(aside, static_cast<const char*>(from) + done, size);
    check(cudaMemcpyAsync(static_cast<char*>(to) + done, aside, size, cudaMemcpyHostToDevice, w.compute), "copying to the device");
    w.slot_free[slot].record(w.compute);
  }
}

}  // namespace libmoe::cuda

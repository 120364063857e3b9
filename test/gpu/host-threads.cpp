// Host threads that share a device at once: started by test/gpu/host-threads.test.ts with the thread sanitizer, which finds what they touch without a lock.
#include <cstdio>
#include <thread>
#include <vector>

#include "core/cuda.h"
#include "cuda/core/upload.h"
#include "cuda/core/whole.h"

using namespace libmoe;

int main() {
  const Device device{DeviceKind::cuda, 0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([device, t] {
      void* data = nullptr;
      const int64_t value = t;
      for (int i = 0; i < 500; ++i) {
        cuda::DeviceState& state = cuda::state_of(device);
        if (!data) cuda::check(cudaMallocAsync(&data, 8, state.compute), "allocating");
        cuda::enqueue_upload(state, data, &value, 8);
        cuda::fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "a value", 0, t});
        if (cuda::started(device) != &state || cuda::all_started().size() != 1) std::puts("another state");
        const std::lock_guard<std::mutex> reading(cuda::whole(device).staging_mutex);
        try {
          cuda::throw_fault(state, 0);
        } catch (const Error&) {
        }
      }
      if (*static_cast<int64_t*>(data) != t) std::puts("another thread's bytes");
      cudaFreeAsync(data, nullptr);
    });
  for (std::thread& t : threads) t.join();
  std::puts("done");
}

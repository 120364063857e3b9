// The backend's table, transfers, and the order of the streams. Byte floor of a copy within the device: each byte read once and written once.
#include <cstring>
#include <vector>

#include "core/cuda.h"
#include "cuda/core/memory.h"
#include "cuda/core/tables.h"
#include "cuda/core/upload.h"
#include "cuda/core/whole.h"

namespace libmoe {
namespace cuda {
namespace {

// For holders of staging_mutex.
void wait(Whole& w) {
  auto* key = reinterpret_cast<unsigned long long*>(w.staging);
  check(cudaMemcpyAsync(key, w.fault, 8, cudaMemcpyDeviceToHost, w.compute), "reading the fault word");
  drain(w);
  throw_fault(w, *key);
}

void upload(Device device, void* to, const void* from, size_t bytes) { enqueue_upload(whole(device), to, from, bytes); }

// Small ones go through page-locked memory, so that none waits before the last is under way.
void download_all(Device device, const std::vector<HostCopy>& list) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.staging_mutex);
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

// Nothing to wait for where nothing has been asked.
void synchronise(Device device) {
  if (!started(device)) return;
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.staging_mutex);
  wait(w);
}

void order(Device device, bool compute_first) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.communication_mutex);
  w.order.record(compute_first ? w.compute : w.communication);
  check(cudaStreamWaitEvent(compute_first ? w.communication : w.compute, w.order.get(), 0), "ordering the streams");
}

uint64_t mark_communication(Device device) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.communication_mutex);
  Event event(cudaEventDisableTiming);
  event.record(w.communication);
  w.tickets.emplace(++w.last_ticket, std::move(event));
  return w.last_ticket;
}

// Tickets are passed in order, so that those before this one go with it.
bool communication_reached(Device device, uint64_t ticket) {
  Whole& w = whole(device);
  std::lock_guard<std::mutex> lock(w.communication_mutex);
  const auto found = w.tickets.find(ticket);
  if (found == w.tickets.end()) return true;
  const cudaError_t state = cudaEventQuery(found->second.get());
  if (state == cudaErrorNotReady) return false;
  check(state, "running a collective");
  w.tickets.erase(w.tickets.begin(), std::next(found));
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
  b.download = [](Device device, void* to, const void* from, size_t bytes) { download_all(device, {{to, from, bytes}}); };
  b.download_all = download_all;
  b.clear = [](Device d, void* data, size_t bytes) {
    if (bytes) check(cudaMemsetAsync(data, 0, bytes, whole(d).compute), "clearing memory");
  };
  b.synchronise = synchronise;
  b.trim = trim;
  b.communication_stream = [](Device d) -> void* { return whole(d).communication; };
  b.begin_communication = [](Device d) { order(d, true); };
  b.end_communication = [](Device d) { order(d, false); };
  b.mark_communication = mark_communication;
  b.communication_reached = communication_reached;
  b.mark = [](Device d) -> void* {
    Whole& w = whole(d);
    Event event(0u);
    event.record(w.compute);
    return event.release();
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

}  // namespace cuda

int64_t cuda_pooled_bytes(Device device) { return cuda::pooled_bytes(device); }

int64_t cuda_waits(Device device) {
  const cuda::Whole* w = cuda::started(device);
  return w ? w->waits.load() : 0;
}

const Backend& cuda_backend() {
  static const Backend* backend = new Backend(cuda::make());
  return *backend;
}

}  // namespace libmoe

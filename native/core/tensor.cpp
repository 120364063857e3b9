#include "core/tensor.h"

#include "core/backend.h"

namespace libmoe {

MemoryCounters& memory_counters(Device device) {
  static MemoryCounters cpu, cuda[16];
  return device.kind == DeviceKind::cpu ? cpu : cuda[device.index & 15];
}

Storage::Storage(const Backend& b, Device d, size_t n) : backend(b), device(d), bytes(n), data(b.allocate(d, n)) {
  MemoryCounters& c = memory_counters(d);
  c.storages += 1;
  const int64_t now = c.bytes += int64_t(n);
  int64_t peak = c.peak_bytes.load();
  while (now > peak && !c.peak_bytes.compare_exchange_weak(peak, now)) {
  }
}

Storage::~Storage() {
  backend.release(device, data, bytes);
  MemoryCounters& c = memory_counters(device);
  c.storages -= 1;
  c.bytes -= int64_t(bytes);
}

std::string Shape::text() const {
  std::string s = "[";
  for (int i = 0; i < rank; ++i) s += (i ? ", " : "") + std::to_string(dims[i]);
  return s + "]";
}

}  // namespace libmoe

#pragma once
// Storage is one block of device memory; TensorView is what an operation sees: contiguous, row-major, not owning.
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/dtype.h"

namespace libmoe {

struct Backend;

enum class DeviceKind : uint8_t { cpu, cuda };
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

class Storage {
 public:
  Storage(const Backend& backend, Device device, size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  const Backend& backend;
  const Device device;
  const size_t bytes;
  void* data;
};

constexpr int kMaxRank = 8;

struct Shape {
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{};
  int64_t operator[](int axis) const { return dims[axis < 0 ? axis + rank : axis]; }
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  std::string text() const;
};

struct TensorView {
  void* data = nullptr;  // null: the optional tensor is absent
  Dtype dtype = Dtype::f32;
  Device device;
  Shape shape;

  explicit operator bool() const { return data != nullptr; }
  int64_t elements() const { return shape.elements(); }
  size_t bytes() const { return size_t(elements()) * size_of(dtype); }
  template <class T> T* as() const { return static_cast<T*>(data); }
};

// Live storages and their bytes on one device; what `memory()` reports.
struct MemoryCounters {
  std::atomic<int64_t> storages{0}, bytes{0}, peak_bytes{0}, pooled_bytes{0};
};
MemoryCounters& memory_counters(Device device);

}  // namespace libmoe

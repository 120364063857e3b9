#pragma once
// Memory of one call, from the pool of host blocks.
#include <algorithm>
#include <cstdint>

#include "core/memory_pool.h"

namespace libmoe::cpu::LIBMOE_ISA {

template <class T> class Pooled {
 public:
  explicit Pooled(int64_t count) : bytes_(size_t(std::max<int64_t>(1, count)) * sizeof(T)), data_(pool_allocate(bytes_)) {}
  ~Pooled() { pool_release(data_, bytes_); }
  Pooled(const Pooled&) = delete;
  Pooled& operator=(const Pooled&) = delete;
  T* get() const { return static_cast<T*>(data_); }
  operator T*() const { return get(); }

 private:
  size_t bytes_;
  void* data_;
};

}  // namespace libmoe::cpu::LIBMOE_ISA

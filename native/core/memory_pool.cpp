#include "core/memory_pool.h"

#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"

namespace libmoe {
namespace {

constexpr size_t kHuge = size_t(2) << 20;

// Eight classes per power of two: at most 12.5 % of a block is wasted.
size_t size_class(size_t bytes) {
  if (bytes <= 1024) return (bytes + 63) / 64 * 64 + (bytes == 0 ? 64 : 0);
  const size_t step = std::bit_floor(bytes - 1) >> 3;
  return (bytes + step - 1) / step * step;
}

struct Pool {
  std::mutex mutex;
  std::unordered_map<size_t, std::vector<void*>> free;
};
Pool& pool() {
  static Pool* instance = new Pool;  // outlives every tensor that a finalizer frees late
  return *instance;
}

}  // namespace

void* map_block(size_t bytes) {
  const size_t alignment = bytes >= kHuge ? kHuge : 64, size = (bytes + alignment - 1) / alignment * alignment;
  void* p = nullptr;
  int status = posix_memalign(&p, alignment, size);
  if (status != 0) {  // blocks of other sizes may lie unused in the pool
    pool_trim();
    status = posix_memalign(&p, alignment, size);
  }
  if (status != 0) {
    fail("ERR_LIBMOE_OUT_OF_MEMORY", "could not allocate " + std::to_string(bytes) + " bytes of host memory (in use: " +
                                         std::to_string(memory_counters({}).bytes.load()) + "); use a smaller batch or gradient accumulation");
  }
  if (bytes >= kHuge) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

void unmap_block(void* data, size_t) { std::free(data); }

void* pool_allocate(size_t bytes) {
  const size_t size = size_class(bytes);
  Pool& p = pool();
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    auto found = p.free.find(size);
    if (found != p.free.end() && !found->second.empty()) {
      void* block = found->second.back();
      found->second.pop_back();
      memory_counters({}).pooled_bytes -= int64_t(size);
      return block;
    }
  }
  return map_block(size);
}

void pool_release(void* data, size_t bytes) {
  const size_t size = size_class(bytes);
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  p.free[size].push_back(data);
  memory_counters({}).pooled_bytes += int64_t(size);
}

void pool_trim() {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  for (auto& [size, blocks] : p.free) {
    for (void* block : blocks) unmap_block(block, size);
    memory_counters({}).pooled_bytes -= int64_t(size * blocks.size());
    blocks.clear();
  }
}

}  // namespace libmoe

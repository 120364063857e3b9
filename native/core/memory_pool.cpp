#include "core/memory_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"

namespace libmoe {
namespace {

constexpr size_t kHuge = size_t(2) << 20;
// From here on a free block of up to twice the size is taken before the system is asked for another: gradients lie where activations were.
constexpr size_t kSmall = size_t(64) << 10;

size_t whole_pages(size_t bytes) {
  static const size_t page = size_t(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Eight classes per power of two: at most 12.5 % of a block is wasted.
size_t size_class(size_t bytes) {
  if (bytes <= 1024) return (bytes + 63) / 64 * 64 + (bytes == 0 ? 64 : 0);
  const size_t step = std::bit_floor(bytes - 1) >> 3;
  return (bytes + step - 1) / step * step;
}

struct Pool {
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> free;
  std::unordered_map<void*, size_t> larger;  // blocks in use of a larger class than what was asked for, and that class
};
Pool& pool() {
  static Pool* instance = new Pool;  // outlives every tensor that a finalizer frees late
  return *instance;
}

// From 2 MB on a block is a mapping of its own, at a multiple of 2 MB: what is unmapped is the system's again, where free() would keep it.
void* map_large(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  const size_t size = whole_pages(bytes), whole = size + kHuge;
  void* mapped = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(mapped), data = (start + kHuge - 1) / kHuge * kHuge;
  if (data > start) munmap(mapped, data - start);
  const uintptr_t end = start + whole;
  if (end > data + size) munmap(reinterpret_cast<void*>(data + size), end - data - size);
  void* block = reinterpret_cast<void*>(data);
  madvise(block, size, MADV_HUGEPAGE);
  return block;
}

void* from_system(size_t bytes) { return bytes >= kHuge ? map_large(bytes) : std::aligned_alloc(64, (bytes + 63) / 64 * 64); }

}  // namespace

void* map_block(size_t bytes) {
  void* p = from_system(bytes);
  if (!p) {  // blocks of other sizes may lie unused in the pool
    pool_trim();
    p = from_system(bytes);
  }
  if (!p) {
    fail("ERR_LIBMOE_OUT_OF_MEMORY", "could not allocate " + std::to_string(bytes) + " bytes of host memory (in use: " +
                                         std::to_string(memory_counters({}).bytes.load()) + "); use a smaller batch or gradient accumulation");
  }
  return p;
}

void unmap_block(void* data, size_t bytes) {
  if (bytes >= kHuge)
    munmap(data, whole_pages(bytes));
  else
    std::free(data);
}

void* pool_allocate(size_t bytes) {
  const size_t size = size_class(bytes);
  Pool& p = pool();
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    for (auto found = p.free.lower_bound(size); found != p.free.end() && found->first <= (size < kSmall ? size : 2 * size); ++found) {
      if (found->second.empty()) continue;
      void* block = found->second.back();
      found->second.pop_back();
      memory_counters({}).pooled_bytes -= int64_t(found->first);
      if (found->first != size) p.larger.emplace(block, found->first);
      return block;
    }
  }
  return map_block(size);
}

void pool_release(void* data, size_t bytes) {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  const auto found = p.larger.find(data);
  const size_t size = found == p.larger.end() ? size_class(bytes) : found->second;
  if (found != p.larger.end()) p.larger.erase(found);
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

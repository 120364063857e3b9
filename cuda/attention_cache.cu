// Writing into the paged cache. Bound by memory: rows are read and written once, a warp per row. A wrong table must leave the cache as it was, so one block looks
// at everything first and says in device memory whether the rows may be written.
#include <cstring>

#include "cuda/core/attention.h"
#include "cuda/core/block.h"

namespace libmoe::cuda {

void cache_write(const TensorView& pool, const TensorView& rows, const TensorView& table, const TensorView& offsets, const TensorView& lengths);
void cache_copy_block(const TensorView& pool, int64_t from, int64_t to);

namespace {

constexpr int kThreads = 256;

struct CacheCall {
  int64_t tokens, table_row, pages;
  int sequences, page_size;
  const int32_t *offsets, *lengths, *table;
  FaultSlot bad_offset, bad_length, bad_page, shared_page;
};

// owner [pages]: the lowest entry of the table that writes to a page; comes as ~0.
__global__ void __launch_bounds__(kThreads) check_kernel(CacheCall call, unsigned long long* owner, int* valid) {
  const int thread = int(threadIdx.x), lane = thread % 32;
  if (thread == 0) *valid = 0;
  bool bad = false;
  for (int i = thread; i <= call.sequences; i += kThreads) {
    const int64_t at = call.offsets[i], before = i ? call.offsets[i - 1] : 0;
    bad = bad || at < before || at > call.tokens || (i == 0 && at != 0) || (i == call.sequences && at != call.tokens);
  }
  if (__syncthreads_or(bad)) return check_offsets(call.offsets, call.sequences, call.tokens, call.bad_offset);
  for (int s = thread; s < call.sequences; s += kThreads) {
    const int64_t queries = int64_t(call.offsets[s + 1]) - call.offsets[s], keys = call.lengths[s];
    if (queries == 0 || (keys >= queries && keys <= call.table_row * call.page_size)) continue;
    call.bad_length.report(s);
    bad = true;
  }
  if (__syncthreads_or(bad)) return;
  // f(entry of the table, its page) for every page that gets rows; a warp per sequence.
  const auto for_pages = [&](auto&& f) {
    for (int s = thread / 32; s < call.sequences; s += kThreads / 32) {
      const int64_t queries = int64_t(call.offsets[s + 1]) - call.offsets[s], keys = call.lengths[s];
      if (queries == 0) continue;
      for (int64_t p = (keys - queries) / call.page_size + lane; p * call.page_size < keys; p += 32) {
        const int64_t entry = s * call.table_row + p;
        f(entry, int64_t(call.table[entry]));
      }
    }
  };
  for_pages([&](int64_t entry, int64_t page) {
    if (page >= 0 && page < call.pages) {
      atomicMin(owner + page, (unsigned long long)entry);
    } else {
      call.bad_page.report(entry);
      bad = true;
    }
  });
  if (__syncthreads_or(bad)) return;
  for_pages([&](int64_t entry, int64_t page) {
    if (*static_cast<volatile unsigned long long*>(owner + page) == (unsigned long long)entry) return;
    call.shared_page.report(entry);
    bad = true;
  });
  if (!__syncthreads_or(bad) && thread == 0) *valid = 1;
}

// `units` of Unit per row.
template <class Unit> __global__ void __launch_bounds__(kThreads) write_kernel(CacheCall call, const int* valid, int64_t units, const Unit* rows, Unit* pool) {
  if (!*valid) return;
  const int64_t token = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (token >= call.tokens) return;
  int low = 0, high = call.sequences;  // the last sequence that begins at or before the token: the one that owns it, later empty ones begin behind it
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (call.offsets[middle] <= token) low = middle;
    else high = middle;
  }
  const int64_t position = call.lengths[low] - call.offsets[low + 1] + token;
  const int64_t page = call.table[low * call.table_row + position / call.page_size], row = page * call.page_size + position % call.page_size;
  for (int64_t i = threadIdx.x % 32; i < units; i += 32) pool[row * units + i] = rows[token * units + i];
}

}  // namespace

void cache_write(const TensorView& pool, const TensorView& rows, const TensorView& table, const TensorView& offsets, const TensorView& lengths) {
  DeviceState& state = state_of(pool.device);
  CacheCall call{};
  call.tokens = rows.shape[0];
  call.table_row = table.shape[1];
  call.pages = pool.shape[0];
  call.page_size = int(pool.shape[1]);
  call.sequences = int(offsets.elements() - 1);
  call.offsets = offsets.as<const int32_t>();
  call.lengths = lengths.as<const int32_t>();
  call.table = table.as<const int32_t>();
  const char* code = "ERR_LIBMOE_ARGUMENT";
  call.bad_offset = fault_slot(state, {code, "cacheWrite: the sequence offsets, which begin with 0, never fall and end with the number of tokens,", 0, call.tokens});
  call.bad_length = fault_slot(state, {code, "cacheWrite: the length of a sequence, which counts its new tokens too,", 0, call.table_row * call.page_size});
  call.bad_page = fault_slot(state, {code, "cacheWrite: a block in the block table", 0, call.pages - 1});
  call.shared_page = fault_slot(state, {code, "cacheWrite: the other sequences that write to a block (give a fork its own copy with cacheCopyBlock first)", 0, 0});

  const size_t owners = sizeof(unsigned long long) * size_t(call.pages), row_bytes = size_t(pool.shape[2] * pool.shape[3]) * size_of(pool.dtype);
  const Scratch scratch(state, owners + sizeof(int));
  auto* owner = scratch.as<unsigned long long>();
  int* valid = reinterpret_cast<int*>(owner + call.pages);
  if (owners) check(cudaMemsetAsync(owner, 0xff, owners, state.compute), "clearing the owners of blocks");
  launch(state, check_kernel, 1, kThreads, 0, call, owner, valid);
  const auto write = [&]<class Unit>() {
    launch(state, write_kernel<Unit>, unsigned(blocks_for(call.tokens, kThreads / 32)), kThreads, 0, call, static_cast<const int*>(valid),
           int64_t(row_bytes / sizeof(Unit)), rows.as<const Unit>(), pool.as<Unit>());
  };
  if (row_bytes % 16 == 0 && aligned_to(pool.data, 16) && aligned_to(rows.data, 16)) write.template operator()<uint4>();
  else write.template operator()<uint16_t>();
}

void cache_copy_block(const TensorView& pool, int64_t from, int64_t to) {
  if (from < 0 || to < 0 || from >= pool.shape[0] || to >= pool.shape[0])
    fail("ERR_LIBMOE_ARGUMENT", "cacheCopyBlock: blocks " + std::to_string(from) + " and " + std::to_string(to) + " of a pool of " + std::to_string(pool.shape[0]));
  if (from == to) return;
  const DeviceState& state = state_of(pool.device);
  const size_t bytes = size_t(pool.shape[1] * pool.shape[2] * pool.shape[3]) * size_of(pool.dtype);
  check(cudaMemcpyAsync(pool.as<char>() + size_t(to) * bytes, pool.as<char>() + size_t(from) * bytes, bytes, cudaMemcpyDeviceToDevice, state.compute), "copying a block");
}

}  // namespace libmoe::cuda

// Counting sort on the device. Three launches: every block counts the experts of a chunk of slots; every expert adds up its chunks; every block ranks its chunk's slots in
// order (warps hold neighbouring runs of it, match and ballot rank the 32 slots of a step) and writes rows and inverse. Floor: 16 bytes per slot (ids read twice, rows and
// inverse written), so it is bound by the launches up to some 10^5 slots. Chunks do not show in the result: it is made of integers that depend on ids and capacities alone.
// A capacity by position is a comparison in the third launch; the other policies rank the slots of experts that are over full in permutation_drop.cu.
#include "ops/permutation.h"

#include <string>

#include "cuda/core/fault.h"
#include "cuda/core/permutation.h"
#include "cuda/core/scan.h"

namespace libmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kLeastChunk = 1024;

struct Sort {
  const int32_t *experts, *capacity;
  int64_t slots, chunk, chunks;
  int count;
  int32_t *base, *totals;  // [count, chunks]: slots of an expert in the chunks before; [count]
  FaultSlot bad;

  __device__ int expert_of(int64_t slot) const {
    const int e = experts[slot];
    return e >= 0 && e < count ? e : -1;
  }
};

// Every warp counts a run of the block's chunk into counters of its own, [warps, experts].
__device__ void count_runs(const Sort& s, int64_t begin, int64_t end, int32_t* counters) {
  const int lane = int(threadIdx.x & 31u), warp = int(threadIdx.x >> 5), warps = int(blockDim.x >> 5);
  for (int i = int(threadIdx.x); i < warps * s.count; i += int(blockDim.x)) counters[i] = 0;
  __syncthreads();
  const int64_t run = s.chunk / warps, first = begin + warp * run, last = min(end, first + run);
  for (int64_t at = first + lane; at < last; at += 32)
    if (const int e = s.expert_of(at); e >= 0) atomicAdd(&counters[warp * s.count + e], 1);
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) count_kernel(Sort s) {
  int32_t* counters = dynamic_shared<int32_t>();
  const int warps = int(blockDim.x >> 5);
  const int64_t begin = int64_t(blockIdx.x) * s.chunk, end = min(s.slots, begin + s.chunk);
  count_runs(s, begin, end, counters);
  for (int64_t at = begin + threadIdx.x; at < end; at += blockDim.x)
    if (s.experts[at] < -1 || s.experts[at] >= s.count) s.bad.report(at);
  for (int e = int(threadIdx.x); e < s.count; e += int(blockDim.x)) {
    int32_t all = 0;
    for (int w = 0; w < warps; ++w) all += counters[w * s.count + e];
    s.base[e * s.chunks + blockIdx.x] = all;
  }
}

// A warp per expert: counts of its chunks become what lies before each.
__global__ void __launch_bounds__(kThreads) chunks_kernel(Sort s) {
  const int e = int(blockIdx.x) * (kThreads / 32) + int(threadIdx.x >> 5), lane = int(threadIdx.x & 31u);
  if (e >= s.count) return;
  int32_t before = 0;
  for (int64_t first = 0; first < s.chunks; first += 32) {
    const int64_t c = first + lane;
    const int32_t own = c < s.chunks ? s.base[e * s.chunks + c] : 0, at = warp_exclusive(own);
    if (c < s.chunks) s.base[e * s.chunks + c] = before + at;
    before += __shfl_sync(kFullWarp, at + own, 31);
  }
  if (lane == 0) s.totals[e] = before;
}

// kInOrder: what is kept are the first slots of an expert; rows are final. Otherwise rows become all slots sorted by expert, and the choice among them is still to come.
template <bool kInOrder>
__global__ void __launch_bounds__(kThreads) scatter_kernel(Sort s, int32_t* rows, int32_t* offsets, int32_t* inverse, int32_t* dropped, SortedSlots sorted) {
  int32_t *kept_rows = dynamic_shared<int32_t>(), *counters = kept_rows + 1;
  const int lane = int(threadIdx.x & 31u), warp = int(threadIdx.x >> 5), warps = int(blockDim.x >> 5);
  int32_t *begin_of = counters + warps * s.count, *limit_of = begin_of + s.count;  // where an expert's rows begin, and how many it has
  const int64_t begin = int64_t(blockIdx.x) * s.chunk, end = min(s.slots, begin + s.chunk);
  count_runs(s, begin, end, counters);

  // Offsets: every block adds up all experts, 32 at a time in its first warp.
  if (warp == 0) {
    int32_t kept = 0, all = 0;
    bool over_full = false;
    for (int first = 0; first < s.count; first += 32) {
      const int e = first + lane;
      const int32_t wanted = e < s.count ? s.totals[e] : 0, stays = e < s.count && s.capacity ? min(wanted, max(0, s.capacity[e])) : wanted;
      const int32_t kept_before = kept + warp_exclusive(stays), all_before = all + warp_exclusive(wanted);
      if (e < s.count) {
        begin_of[e] = kInOrder ? kept_before : all_before;
        limit_of[e] = kInOrder ? stays : wanted;
      }
      over_full = over_full || __any_sync(kFullWarp, stays < wanted);
      if (blockIdx.x == 0 && e < s.count) {
        offsets[e] = kept_before;
        dropped[e] = wanted - stays;
        if constexpr (!kInOrder) sorted.begin[e] = all_before;
      }
      kept = __shfl_sync(kFullWarp, kept_before + stays, 31);
      all = __shfl_sync(kFullWarp, all_before + wanted, 31);
    }
    if (lane == 0) {
      *kept_rows = kept;
      if (blockIdx.x == 0) {
        offsets[s.count] = kept;
        if constexpr (!kInOrder) {
          sorted.begin[s.count] = all;
          *sorted.over_full = over_full;
        }
      }
    }
  }
  // Counts of the runs become the rank of their first slot among all of the expert.
  for (int e = int(threadIdx.x); e < s.count; e += int(blockDim.x)) {
    int32_t rank = s.base[e * s.chunks + blockIdx.x];
    for (int w = 0; w < warps; ++w) {
      const int32_t own = counters[w * s.count + e];
      counters[w * s.count + e] = rank;
      rank += own;
    }
  }
  __syncthreads();

  const int64_t run = s.chunk / warps, first = begin + warp * run, last = min(end, first + run);
  for (int64_t step = first; step < last; step += 32) {
    const int64_t slot = step + lane;
    const int e = slot < last ? s.expert_of(slot) : -1;
    const unsigned alike = __match_any_sync(kFullWarp, e);
    const int32_t rank = e < 0 ? 0 : counters[warp * s.count + e] + __popc(alike & ((1u << lane) - 1));
    __syncwarp();
    if (e >= 0 && (alike >> lane) == 1) counters[warp * s.count + e] = rank + 1;  // the last of those alike
    __syncwarp();
    const bool stays = e >= 0 && rank < limit_of[e];
    if (stays) rows[begin_of[e] + rank] = int32_t(slot);
    if (slot < last) inverse[slot] = kInOrder && stays ? begin_of[e] + rank : -1;
  }
  if constexpr (kInOrder)
    for (int64_t row = *kept_rows + int64_t(blockIdx.x) * blockDim.x + threadIdx.x; row < s.slots; row += int64_t(gridDim.x) * blockDim.x) rows[row] = -1;
}

void plan(const TensorView& experts, const TensorView& capacity, const TensorView& weights, const PermutationOptions& options, const TensorView& rows, const TensorView& offsets,
          const TensorView& inverse, const TensorView& dropped) {
  DeviceState& state = state_of(experts.device);
  const int64_t slots = experts.elements(), k = experts.shape[1], count = dropped.elements();
  // Blocks with many warps want counters for each: fewer warps where there are very many experts.
  int warps = kThreads / 32;
  const auto shared = [&] { return size_t(1 + (warps + 2) * count) * 4; };
  while (warps > 1 && shared() > 96 * 1024) warps /= 2;
  if (shared() > state.shared_bytes)
    fail("ERR_LIBMOE_UNSUPPORTED", "a dispatch plan on this device counts at most " + std::to_string(state.shared_bytes / 12 - 1) + " experts, got " + std::to_string(count));
  int64_t chunk = kLeastChunk;
  while (blocks_for(slots, chunk) > 4 * int64_t(state.multiprocessors)) chunk *= 2;
  const int64_t chunks = blocks_for(slots, chunk);
  const Scratch numbers(state, size_t(count) * size_t(chunks + 1) * 4);
  Sort s{experts.as<int32_t>(), capacity.as<int32_t>(), slots, chunk, chunks, int(count), numbers.as<int32_t>() + count, numbers.as<int32_t>(), {}};
  s.bad = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "expert ids", -1, count - 1, "slot (token * topK + choice)"});

  const unsigned threads = unsigned(warps * 32);
  launch(state, count_kernel, unsigned(chunks), threads, size_t(warps * count) * 4, s);
  launch(state, chunks_kernel, unsigned(blocks_for(count, kThreads / 32)), kThreads, 0, s);
  const bool in_order = !capacity || (options.policy == DropPolicy::position && !options.slot_major);
  if (in_order) {
    launch(state, scatter_kernel<true>, unsigned(chunks), threads, shared(), s, rows.as<int32_t>(), offsets.as<int32_t>(), inverse.as<int32_t>(), dropped.as<int32_t>(), SortedSlots{});
    return;
  }
  const Scratch sorted(state, size_t(slots + count + 2) * 4);
  const SortedSlots all{sorted.as<int32_t>() + count + 2, sorted.as<int32_t>(), sorted.as<int32_t>() + count + 1};
  launch(state, scatter_kernel<false>, unsigned(chunks), threads, shared(), s, all.slots, offsets.as<int32_t>(), inverse.as<int32_t>(), dropped.as<int32_t>(), all);
  drop_slots(state, experts, weights, k, options, all, rows.as<int32_t>(), offsets.as<int32_t>(), inverse.as<int32_t>(), count);
}

}  // namespace

extern const PermutationOps permutation_ops;
const PermutationOps permutation_ops = {plan};

}  // namespace libmoe::cuda

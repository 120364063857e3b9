// Bytes at least: rows, inverse and gate weights read once, 12 to 16 bytes a slot written; bound by the time of two launches. The layout is one block's work
// (a scan over the experts, their order by size, one search per tile), the slots are shared by the grid.
#include "cuda/core/expert_rows.h"

#include "cuda/core/fault.h"

namespace libmoe::cuda {
namespace {

constexpr int kLayoutThreads = 1024, kSlotThreads = 256;
constexpr FaultText kBroken = {"ERR_LIBMOE_ARGUMENT", "groupedFfn: the plan's rows, offsets and inverse do not belong together; make it with dispatchPlan(): an entry", 0, 0};

__global__ void __launch_bounds__(kLayoutThreads) layout_kernel(int experts, int slots, int height, const int32_t* given, int32_t* offsets, int32_t* order, int32_t* starts,
                                                                int32_t* tile_count, RowTile* tiles, FaultSlot fault) {
  __shared__ int sums[kLayoutThreads];
  const int me = int(threadIdx.x);
  int bad = me == 0 && (given[0] != 0 || given[experts] > slots);
  for (int e = me; e < experts; e += kLayoutThreads) bad |= given[e] < 0 || given[e] > given[e + 1];
  if (bad) fault.report(0);
  const bool broken = __syncthreads_or(bad);  // then nobody has rows
  for (int e = me; e <= experts; e += kLayoutThreads) offsets[e] = broken ? 0 : given[e];
  const auto rows_of = [&](int e) { return broken ? 0 : given[e + 1] - given[e]; };

  // Tiles before each expert: every thread counts neighbouring experts, thread 0 adds up.
  const int each = (experts + kLayoutThreads - 1) / kLayoutThreads, first = me * each, last = min(experts, first + each);
  int count = 0;
  for (int e = first; e < last; ++e) count += (rows_of(e) + height - 1) / height;
  sums[me] = count;
  __syncthreads();
  if (me == 0) {
    int before = 0;
    for (int i = 0; i < kLayoutThreads; ++i) {
      const int own = sums[i];
      sums[i] = before;
      before += own;
    }
    starts[experts] = before;
    *tile_count = before;
  }
  __syncthreads();
  int before = sums[me];
  for (int e = first; e < last; ++e) {
    starts[e] = before;
    before += (rows_of(e) + height - 1) / height;
  }
  for (int e = me; e < experts; e += kLayoutThreads) {
    const int own = rows_of(e);
    int rank = 0;
    for (int other = 0; other < experts; ++other) {
      const int rows = rows_of(other);
      rank += rows > own || (rows == own && other < e);
    }
    order[rank] = e;
  }
  __syncthreads();
  const int total = starts[experts];
  for (int i = me; i < total; i += kLayoutThreads) {
    int low = 0, high = experts - 1;  // the last expert that starts at or before tile i
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (starts[middle] <= i) low = middle;
      else high = middle - 1;
    }
    const int row = given[low] + (i - starts[low]) * height;
    tiles[i] = {low, row, min(height, given[low + 1] - row), 0};
  }
}

template <class W>
__global__ void __launch_bounds__(kSlotThreads) slots_kernel(int64_t slots, int experts, int top_k, const int32_t* rows, const int32_t* inverse, const int32_t* offsets, const W* weights,
                                                             int32_t* slot, int32_t* token, W* weight, FaultSlot fault) {
  const int64_t kept = offsets[experts];
  for (int64_t i = int64_t(blockIdx.x) * kSlotThreads + threadIdx.x; i < slots; i += int64_t(gridDim.x) * kSlotThreads) {
    if (inverse[i] < -1 || inverse[i] >= kept) fault.report(i);
    if (i >= kept) continue;
    const int from = rows[i];
    const bool good = from >= 0 && from < slots && inverse[from] == i;
    if (!good) fault.report(i);
    slot[i] = good ? from : -1;
    token[i] = good ? from / top_k : 0;
    weight[i] = good ? weights[from] : W(0);
  }
}

constexpr size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

struct Sizes {
  int64_t slots, experts, tiles;
  Sizes(const GroupedPlan& p, int height) : slots(p.tokens * p.top_k), experts(p.experts), tiles(slots / height + std::min<int64_t>(slots, p.experts)) {
    if (slots > 0x7ffffff0) fail("ERR_LIBMOE_SHAPE", "groupedFfn on CUDA takes fewer than 2^31 choices at once; use a smaller batch");
  }
};

}  // namespace

template <class W>
ExpertLayout<W>::ExpertLayout(DeviceState& state, const GroupedPlan& plan, const W* weights, int height)
    : memory_(state, [&] {
        const Sizes s(plan, height);
        return padded(size_t(s.experts + 1) * 4) * 2 + padded(size_t(s.experts) * 4) + padded(4) + padded(size_t(s.slots) * 4) * 2 + padded(size_t(s.slots) * sizeof(W)) +
               padded(size_t(s.tiles) * sizeof(RowTile));
      }()) {
  const Sizes s(plan, height);
  char* at = memory_.template as<char>();
  const auto take = [&]<class X>(X*& p, int64_t n) {
    p = reinterpret_cast<X*>(at);
    at += padded(size_t(n) * sizeof(X));
  };
  int32_t *offsets, *starts, *order, *count, *slot, *token;
  W* weight;
  RowTile* tiles;
  take(offsets, s.experts + 1);
  take(starts, s.experts + 1);
  take(order, s.experts);
  take(count, 1);
  take(slot, s.slots);
  take(token, s.slots);
  take(weight, s.slots);
  take(tiles, s.tiles);
  FaultText text = kBroken;
  text.high = s.slots - 1;
  const FaultSlot fault = fault_slot(state, text);
  launch(state, layout_kernel, 1, kLayoutThreads, 0, int(s.experts), int(s.slots), height, plan.offsets, offsets, order, starts, count, tiles, fault);
  launch(state, slots_kernel<W>, grid_for(state, s.slots, kSlotThreads), kSlotThreads, 0, s.slots, int(s.experts), int(plan.top_k), plan.rows, plan.inverse,
         static_cast<const int32_t*>(offsets), weights, slot, token, weight, fault);
  rows_ = {int(s.experts), s.slots, offsets, order, slot, token, weight, height, s.tiles, count, tiles};
}

template class ExpertLayout<float>;
template class ExpertLayout<double>;

}  // namespace libmoe::cuda

// Which slots of over-full experts stay. A block per expert: radix selection finds the last key that stays, 8 bits a pass over the expert's own slots, then a stable
// compaction writes them. Experts within their capacity are copied. Floor: 12 bytes per slot; an over-full expert's keys (8 bytes each) are read once per pass, from L2.
#include <bit>

#include "core/philox.h"
#include "cuda/core/fault.h"
#include "cuda/core/permutation.h"
#include "cuda/core/radix_select.h"

namespace libmoe::cuda {
namespace {

// (choice number << 64 where slots go first) | what the policy ranks by; smaller stays.
using Key = unsigned __int128;

// Descending order of |w| as ascending integers: non-negative IEEE numbers are ordered like their bits.
__device__ inline uint64_t descending(double w) { return ~std::bit_cast<uint64_t>(fabs(w)); }

struct Ranking {
  const int32_t* experts;
  const float* f32;
  const double* f64;
  int64_t tokens, k, count;
  DropPolicy policy;
  uint64_t seed;

  __device__ double weight(int64_t slot) const { return f64 ? f64[slot] : double(f32[slot]); }
  __device__ bool has_expert(int64_t slot) const { return experts[slot] >= 0 && experts[slot] < count; }
};

// keys[slot] of every slot, a thread per token; nothing to do while no expert is over full.
__global__ void __launch_bounds__(256) keys_kernel(Ranking r, const int32_t* over_full, uint64_t* keys, FaultSlot bad) {
  if (!*over_full) return;
  for (int64_t t = int64_t(blockIdx.x) * 256 + threadIdx.x; t < r.tokens; t += int64_t(gridDim.x) * 256) {
    double top = 0;
    for (int64_t slot = t * r.k; slot < (t + 1) * r.k; ++slot) {
      if (r.policy == DropPolicy::random) {
        const auto words = philox(r.seed, 0, uint64_t(slot));
        keys[slot] = uint64_t(words[0]) << 32 | words[1];
        continue;
      }
      if (!r.has_expert(slot)) continue;
      const double w = fabs(r.weight(slot));
      if (w != w) bad.report(slot);
      top = w > top ? w : top;
      keys[slot] = descending(w);
    }
    if (r.policy == DropPolicy::batch_prioritised)
      for (int64_t slot = t * r.k; slot < (t + 1) * r.k; ++slot) keys[slot] = descending(top);
  }
}

__global__ void __launch_bounds__(kSelectThreads)
keep_kernel(SortedSlots sorted, const uint64_t* keys, int64_t k, bool slot_major, int key_bits, int bits, int32_t* rows, const int32_t* offsets, int32_t* inverse, int64_t slots) {
  const int64_t e = blockIdx.x;
  const int32_t first = sorted.begin[e], wanted = sorted.begin[e + 1] - first, row = offsets[e], keep = offsets[e + 1] - row;
  const int32_t* own = sorted.slots + first;
  // Behind the last row there is nothing.
  for (int64_t i = offsets[gridDim.x] + e * kSelectThreads + threadIdx.x; i < slots; i += int64_t(gridDim.x) * kSelectThreads) rows[i] = -1;
  if (keep == 0) return;
  if (keep == wanted) {
    for (int i = int(threadIdx.x); i < wanted; i += kSelectThreads) {
      rows[row + i] = own[i];
      inverse[own[i]] = row + i;
    }
    return;
  }
  const auto key_at = [&](int64_t i) {
    const int32_t slot = own[i];
    return (slot_major ? Key(slot % k) << key_bits : Key(0)) | (key_bits ? keys[slot] : 0);
  };
  const Selected<Key> last = radix_select<Key>(wanted, keep, bits, key_at);
  int32_t done = 0;
  for (int begin = 0; begin < wanted; begin += kSelectThreads) {
    const int i = begin + int(threadIdx.x);
    bool stays = false;
    if (i < wanted) {
      const Key key = key_at(i);
      stays = key < last.key || (key == last.key && i <= last.last);
    }
    int32_t all;
    const int32_t at = row + done + block_exclusive<kSelectThreads>(int32_t(stays), all);
    if (stays) {
      rows[at] = own[i];
      inverse[own[i]] = at;
    }
    done += all;
  }
}

}  // namespace

void drop_slots(DeviceState& state, const TensorView& experts, const TensorView& weights, int64_t k, const PermutationOptions& options, const SortedSlots& sorted, int32_t* rows,
                const int32_t* offsets, int32_t* inverse, int64_t count) {
  const int64_t slots = experts.elements(), tokens = slots / k;
  const bool ranked = options.policy != DropPolicy::position;
  // Probability and random rank each slot by itself, whatever its choice number.
  const bool slot_major = options.slot_major && (options.policy == DropPolicy::position || options.policy == DropPolicy::batch_prioritised);
  const Scratch keys(state, ranked ? size_t(slots) * sizeof(uint64_t) : 0);
  if (ranked) {
    const bool wide = weights && weights.dtype == Dtype::f64;
    const Ranking r{experts.as<int32_t>(), wide ? nullptr : weights.as<float>(), wide ? weights.as<double>() : nullptr, tokens, k, count, options.policy, options.seed};
    const FaultSlot bad = fault_slot(state, {"ERR_LIBMOE_NOT_FINITE", "the weight of a choice", 1, 0, "slot (token * topK + choice)"});
    launch(state, keys_kernel, grid_for(state, tokens, 256, 8), 256, 0, r, static_cast<const int32_t*>(sorted.over_full), keys.as<uint64_t>(), bad);
  }
  const int key_bits = ranked ? 64 : 0, bits = key_bits + (slot_major ? int(std::bit_width(uint64_t(k - 1))) : 0);
  launch(state, keep_kernel, unsigned(count), kSelectThreads, 0, sorted, static_cast<const uint64_t*>(keys.as<uint64_t>()), k, slot_major, key_bits, bits, rows, offsets, inverse, slots);
}

}  // namespace libmoe::cuda

// Counting sort in three passes over fixed chunks of slots: count per (chunk, expert), scan over (expert, chunk), scatter. Reads the ids twice and
// writes rows and inverse once: 16 bytes per slot. Chunks depend on the number of slots only, so the result does not depend on threads.
#include "ops/permutation.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "core/philox.h"
#include "core/thread_pool.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kChunk = 8192;

// Smaller comes first.
struct Key {
  uint64_t first, second;
  int64_t slot;
  bool operator<(const Key& o) const { return first != o.first ? first < o.first : second != o.second ? second < o.second : slot < o.slot; }
};

// Descending order of |w| as ascending integers: non-negative IEEE numbers are ordered like their bits.
uint64_t descending(double w) { return ~std::bit_cast<uint64_t>(std::fabs(w)); }

struct Weights {
  const TensorView& view;
  double operator[](int64_t slot) const { return view.dtype == Dtype::f64 ? view.as<double>()[slot] : double(view.as<float>()[slot]); }
};

struct Ranking {
  const PermutationOptions& options;
  Weights weights;
  const int32_t* experts;
  int64_t tokens, k;

  Key operator()(int64_t slot) const {
    const int64_t token = slot / k, j = slot % k;
    const uint64_t major = options.slot_major ? uint64_t(j) : 0;
    switch (options.policy) {
      case DropPolicy::probability: return {descending(weights[slot]), 0, slot};
      case DropPolicy::random: {
        const auto words = philox(options.seed, 0, uint64_t(slot));
        return {uint64_t(words[0]) << 32 | words[1], 0, slot};
      }
      case DropPolicy::batch_prioritised: {
        double top = 0;
        for (int64_t i = token * k; i < token * k + k; ++i)
          if (experts[i] >= 0) top = std::max(top, std::fabs(weights[i]));
        return {major, descending(top), slot};
      }
      default: return {major, 0, slot};
    }
  }
};

void check_ids(const int32_t* experts, int64_t slots, int64_t k, int32_t expert_count) {
  for (int64_t s = 0; s < slots; ++s)
    if (experts[s] < -1 || experts[s] >= expert_count)
      fail("ERR_LIBMOE_ARGUMENT", "expert ids must be -1 (none) or 0 to " + std::to_string(expert_count - 1) + ", got " + std::to_string(experts[s]) + " for choice " +
                                      std::to_string(s % k) + " of token " + std::to_string(s / k));
}

void check_weights(const Weights& weights, const int32_t* experts, int64_t slots, int64_t k) {
  for (int64_t s = 0; s < slots; ++s)
    if (experts[s] >= 0 && weights[s] != weights[s])
      fail("ERR_LIBMOE_NOT_FINITE", "the weight of choice " + std::to_string(s % k) + " of token " + std::to_string(s / k) + " is NaN");
}

void plan(const TensorView& experts_view, const TensorView& capacity, const TensorView& weights_view, const PermutationOptions& options, const TensorView& rows_view,
          const TensorView& offsets_view, const TensorView& inverse_view, const TensorView& dropped_view) {
  const int64_t tokens = experts_view.shape[0], k = experts_view.shape[1], slots = tokens * k;
  const int32_t count = int32_t(dropped_view.elements());
  const int32_t* experts = experts_view.as<int32_t>();
  const int32_t* limit = capacity.as<int32_t>();
  int32_t *rows = rows_view.as<int32_t>(), *offsets = offsets_view.as<int32_t>(), *inverse = inverse_view.as<int32_t>(), *dropped = dropped_view.as<int32_t>();
  check_ids(experts, slots, k, count);

  const int64_t chunks = (slots + kChunk - 1) / kChunk;
  int32_t* base = scratch_of<int32_t>(0, std::max<int64_t>(1, chunks) * count);
  parallel_for(chunks, [&](int64_t c) {
    int32_t* mine = base + c * count;
    std::fill(mine, mine + count, 0);
    for (int64_t s = c * kChunk; s < std::min(slots, (c + 1) * kChunk); ++s)
      if (experts[s] >= 0) ++mine[experts[s]];
  });

  // Counts become the first row of each (expert, chunk); begin[e] is where expert e starts before anything is dropped.
  int32_t* begin = scratch_of<int32_t>(1, count + 1);
  int32_t all = 0, kept = 0;
  bool overfull = false;
  for (int32_t e = 0; e < count; ++e) {
    begin[e] = all;
    offsets[e] = kept;
    for (int64_t c = 0; c < chunks; ++c) {
      const int32_t n = base[c * count + e];
      base[c * count + e] = all;
      all += n;
    }
    const int32_t wanted = all - begin[e];
    dropped[e] = limit ? std::max(0, wanted - std::max(0, limit[e])) : 0;
    kept += wanted - dropped[e];
    overfull |= dropped[e] > 0;
  }
  begin[count] = all;
  offsets[count] = kept;
  std::fill(rows + kept, rows + slots, -1);

  const Weights weights{weights_view};
  if (overfull && (options.policy == DropPolicy::probability || options.policy == DropPolicy::batch_prioritised)) check_weights(weights, experts, slots, k);

  int32_t* sorted = overfull ? scratch_of<int32_t>(2, slots) : rows;
  parallel_for(chunks, [&](int64_t c) {
    int32_t* next = base + c * count;
    for (int64_t s = c * kChunk; s < std::min(slots, (c + 1) * kChunk); ++s) {
      inverse[s] = -1;
      if (experts[s] < 0) continue;
      const int32_t row = next[experts[s]]++;
      sorted[row] = int32_t(s);
      if (!overfull) inverse[s] = row;
    }
  });
  if (!overfull) return;

  const Ranking rank{options, weights, experts, tokens, k};
  // Keys live in the segment of their expert, so that experts can be worked on side by side.
  Key* keys = scratch_of<Key>(3, all);
  parallel_for(count, [&](int64_t e) {
    const int32_t first = begin[e], wanted = begin[e + 1] - first, keep = wanted - dropped[e];
    int32_t row = offsets[e];
    if (dropped[e] == 0 || (options.policy == DropPolicy::position && !options.slot_major)) {
      for (int32_t i = first; i < first + keep; ++i) {
        rows[row] = sorted[i];
        inverse[sorted[i]] = row++;
      }
      return;
    }
    if (keep == 0) return;
    Key* own = keys + first;
    for (int32_t i = 0; i < wanted; ++i) own[i] = rank(sorted[first + i]);
    std::nth_element(own, own + keep - 1, own + wanted);
    const Key last = own[keep - 1];
    for (int32_t i = first; i < first + wanted; ++i) {
      if (last < rank(sorted[i])) continue;
      rows[row] = sorted[i];
      inverse[sorted[i]] = row++;
    }
  });
}

}  // namespace

extern const PermutationOps permutation_ops;
const PermutationOps permutation_ops = {plan};

}  // namespace libmoe::cpu::LIBMOE_ISA

#pragma once
// Between the two halves of a plan with a capacity: all slots sorted by expert, before some are dropped.
#include "cuda/core/runtime.h"
#include "ops/permutation.h"

namespace libmoe::cuda {

struct SortedSlots {
  int32_t* slots;      // [all slots], by (expert, slot)
  int32_t* begin;      // [experts + 1]: where an expert's begin
  int32_t* over_full;  // [1]: whether any expert has more than its capacity
};

// Chooses the slots that stay by the policy, writes rows (with -1 behind the last) and their part of inverse, which holds -1 everywhere. offsets are those of the kept.
void drop_slots(DeviceState& state, const TensorView& experts, const TensorView& weights, int64_t k, const PermutationOptions& options, const SortedSlots& sorted, int32_t* rows,
                const int32_t* offsets, int32_t* inverse, int64_t count);

}  // namespace libmoe::cuda

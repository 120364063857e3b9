#pragma once
// From the experts chosen per token to rows sorted by expert. A slot is one choice: slot = token * k + j for the j-th choice of a token.
// Within one expert the rows are in ascending slot order, whatever was dropped, so the plan is a pure function of its inputs.
#include "core/tensor.h"

namespace libmoe {

// Which slots of an expert with more slots than capacity are kept:
//   position           the first in the order given by `slot_major`
//   probability        those with the largest |weight| (signed weights count by size), ties to the lower slot
//   random             those with the smallest Philox hash of (seed, slot)
//   batch_prioritised  as position, but with tokens ordered by their largest |weight| (Riquelme et al. 2021)
enum class DropPolicy : int { position, probability, random, batch_prioritised };

struct PermutationOptions {
  DropPolicy policy = DropPolicy::position;
  bool slot_major = false;  // first choices of all tokens come before second choices
  uint64_t seed = 0;
};

struct PermutationOps {
  // experts i32 [T, k], in [-1, E); -1 is no expert. capacity i32 [E], below 0 as 0, or absent (nothing is dropped). weights f32 or f64 [T, k], needed by
  // probability and batch_prioritised only.
  // rows i32 [T * k]: kept slots sorted by (expert, slot), then -1. offsets i32 [E + 1]: expert e owns rows offsets[e] .. offsets[e + 1].
  // inverse i32 [T, k]: the row of a slot, or -1. dropped i32 [E]: slots beyond the capacity.
  // Throws ERR_LIBMOE_ARGUMENT for an id outside the range and ERR_LIBMOE_NOT_FINITE for a NaN weight, naming the slot.
  void (*plan)(const TensorView& experts, const TensorView& capacity, const TensorView& weights, const PermutationOptions& options, const TensorView& rows,
               const TensorView& offsets, const TensorView& inverse, const TensorView& dropped);
};

}  // namespace libmoe

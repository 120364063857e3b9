#include "ops/permutation.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

// dispatchPlan(experts, capacity?, weights?, policy, slotMajor, seed, rows, offsets, inverse, dropped)
void plan(Call& call) {
  Dim tokens("tokens"), k("topK"), count("experts");
  const TensorView experts = call.tensor("experts", kI32, {&tokens, &k});
  const TensorView capacity = call.optional("capacity", kI32, {&count});
  const TensorView weights = call.optional("weights", kWide, {&tokens, &k});
  PermutationOptions options;
  options.policy = static_cast<DropPolicy>(call.integer("policy", 0, int(DropPolicy::batch_prioritised)));
  options.slot_major = call.boolean("slotMajor");
  options.seed = uint64_t(call.integer("seed", 0, int64_t(1) << 53));
  Dim slots("slots", tokens * k);
  call.require(slots > 0 && slots < (int64_t(1) << 31), "ERR_LIBMOE_SHAPE", "experts must hold between 1 and 2^31 - 1 choices, got " + experts.shape.text());
  const TensorView rows = call.tensor("rows", kI32, {&slots});
  const TensorView offsets = call.tensor("offsets", kI32);
  const TensorView inverse = call.tensor("inverse", kI32, {&tokens, &k});
  const TensorView dropped = call.tensor("dropped", kI32, {&count});
  call.require(offsets.elements() == count + 1, "ERR_LIBMOE_SHAPE", "offsets must be [experts + 1], got " + offsets.shape.text());
  const bool needs_weights = options.policy == DropPolicy::probability || options.policy == DropPolicy::batch_prioritised;
  call.require(weights || !needs_weights || !capacity, "ERR_LIBMOE_ARGUMENT", "this drop policy ranks by weight: pass weights");
  call.family(&Backend::permutation).plan(experts, capacity, weights, options, rows, offsets, inverse, dropped);
}

}  // namespace

void bind_permutation(Napi::Object exports) { expose(exports, "dispatchPlan", plan); }

}  // namespace libmoe::binding

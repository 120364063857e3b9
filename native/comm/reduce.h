#pragma once
// The arithmetic of reductions on the host. Element by element, in the order in which the inputs are given; bf16 in f32, rounded once at the end.
#include <cstdint>

#include "core/dtype.h"
#include "ops/collective.h"

namespace libmoe::comm {

// to[i] = inputs[0][i] ∘ inputs[1][i] ∘ …; `to` may be one of the inputs.
void reduce(Dtype dtype, Reduction f, const void* const* inputs, int count, void* to, int64_t elements);

}  // namespace libmoe::comm

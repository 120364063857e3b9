#pragma once
// Experts without products (cuda/cheap_experts.cu): the `cheap` and `cheap_backward` of ops/grouped_ffn.h.
#include "ops/grouped_ffn.h"

namespace libmoe::cuda {

void cheap_experts(const CheapExperts& e, const TensorView& out);
void cheap_experts_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors);

}  // namespace libmoe::cuda

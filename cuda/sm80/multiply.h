#pragma once
// The engine's entries, one per file so that they compile side by side.
#include "cuda/core/product_shapes.h"

namespace libmoe::cuda::sm80 {

// By how a and b are stored: n as [rows, k], t with k first. (A weight W is stored [n, k], hence nn for x W^T.)
void multiply_nn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p);
void multiply_nt(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p);
void multiply_tn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p);
void multiply_tt(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p);
void multiply_up(const DeviceState& state, const Product<bf16, UpEpilogue<bf16>>& p);
void multiply_slope(const DeviceState& state, const Product<bf16, SlopeEpilogue<bf16>>& p);

}  // namespace libmoe::cuda::sm80

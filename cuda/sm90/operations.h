#pragma once
// The products of this generation by layout of their operands, each compiled in a file of its own. `slots` as in product.h.
#include "cuda/core/product_shapes.h"

namespace libmoe::cuda::sm90 {

// a [m, k] b [n, k]; a [m, k] b [k, n]; a [k, m] b [k, n].
void product_nt(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p, int64_t slots);
void product_nn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p, int64_t slots);
void product_tn(const DeviceState& state, const Product<bf16, StoreEpilogue<bf16>>& p, int64_t slots);
void product_up(const DeviceState& state, const Product<bf16, UpEpilogue<bf16>>& p, int64_t slots);
void product_slope(const DeviceState& state, const Product<bf16, SlopeEpilogue<bf16>>& p, int64_t slots);

}  // namespace libmoe::cuda::sm90

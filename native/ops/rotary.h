#pragma once
// Rotary position embedding (Su et al., 2021): pairs of channels are turned by an angle that grows with the position.
#include "core/tensor.h"

namespace libmoe {

struct RotaryOps {
  // x, y [tokens, heads, width] f32, bf16 or f64; positions i32 [tokens], each in [0, table rows); cosine, sine [table rows, pairs] f32 (f64 for f64).
  // Channels [0, 2 pairs) are turned, the rest is copied. Pair j is (j, j + pairs), or (2j, 2j + 1) when `interleaved`.
  // `inverse` turns back: the gradient of the operation.
  void (*rotary)(const TensorView& x, const TensorView& cosine, const TensorView& sine, const TensorView& positions, const TensorView& y, bool interleaved,
                 bool inverse);
};

}  // namespace libmoe

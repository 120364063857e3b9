#pragma once
// Random tensors. Every value is a function of (seed, stream, index of the element): the same for any number of threads and any shape of the same size.
// bf16 holds the rounded f32 value. Counters of element i: four elements share one Philox block (f64: two elements).
#include "core/tensor.h"

namespace libmoe {

struct RandomSource {
  uint64_t seed = 0, stream = 0;
};

struct RandomOps {
  // low + (high - low) u, u uniform in [0, 1); f32 and f64 results stay below high when low < high. f32, bf16, f64.
  void (*uniform)(const TensorView& y, RandomSource source, double low, double high);
  // The same with a stream for each row: y [rows, n], streams i32 [rows]; a row has the bits that `uniform` gives a tensor of its size.
  void (*uniform_rows)(const TensorView& y, const TensorView& streams, uint64_t seed, double low, double high);
  // Normal by Box-Muller. f32 reaches 6.7 standard deviations, f64 8.5.
  void (*normal)(const TensorView& y, RandomSource source, double mean, double deviation);
  // Normal of standard deviation `deviation` conditioned on |y| <= bound * deviation, 0 < bound, through the inverse distribution function.
  void (*truncated_normal)(const TensorView& y, RandomSource source, double deviation, double bound);
  // 1 with the given probability, else 0. f32, bf16, f64, bool, u8.
  void (*bernoulli)(const TensorView& y, RandomSource source, double probability);
  // A permutation of 0 .. n-1, i32 [n] (Fisher-Yates); depends on n too.
  void (*permutation)(const TensorView& y, RandomSource source);
};

}  // namespace libmoe

#pragma once
// The expert feed-forward networks of one MoE layer: y[t] = sum over j of w[t, j] * FFN_{expert(t, j)}(x[t]), forward and backward.
//
// A plan (ops/permutation.h) says which rows each expert sees. Weights: up [E, F, d] with F = hidden, or 2 hidden when gated (the gate rows
// first, then the up rows), down [E, d, hidden]; optional biases [E, F] and [E, d].
//   z = x up^T + up_bias;  a = act(z), gated: act(z_gate) * z_up;  y = a down^T + down_bias.
// clamped_swiglu is gated always (gpt-oss, arXiv 2508.10925): a = quick_gelu(min(z_gate, 7)) * (min(max(z_up, -7), 7) + 1).
// Nothing of size [slots, d] is kept for backward: the gradient of a gate weight is <dOut, y> = <dOut down, a> + <dOut, down_bias>.
// Every sum has a fixed order (k ascending, rows of an expert ascending, slots of a token ascending), so results do not depend on threads, and
// those of a token not on its neighbours.
#include "core/tensor.h"

namespace libmoe {

enum class Activation : int { identity, relu, silu, gelu_erf, gelu_tanh, quick_gelu, clamped_swiglu };

struct GroupedFfn {
  Activation activation = Activation::silu;
  bool gated = true;
  TensorView x;                      // [T, d]
  TensorView rows;                   // i32 [T * k]
  TensorView offsets;                // i32 [E + 1]
  TensorView inverse;                // i32 [T, k]
  TensorView weights;                // [T, k] f32, or f64 for f64; may be negative
  TensorView up, up_bias;            // dtype of x; up_bias may be absent
  TensorView down, down_bias;        // dtype of x; down_bias may be absent
};

// Any may be absent: not wanted. Weight gradients are f32 (f64 for f64) and are added to where the flag says so.
struct GroupedFfnGradients {
  TensorView dx;                     // [T, d] dtype of x
  TensorView weights;                // [T, k] dtype of weights; 0 for dropped slots
  TensorView up, up_bias, down, down_bias;
  bool add_up = false, add_up_bias = false, add_down = false, add_down_bias = false;
};

// Experts that cost no product (MoE++, arXiv 2410.07348). Of the router outputs `choices`, `copies` from `first` on give the token, and the c after
// them a constant mixed with the token: s x + (1 - s) v, s = sigmoid(mix_0 - mix_1). All others have no part.
struct CheapExperts {
  TensorView x;                      // [T, d]
  TensorView choices;                // i32 [T, k], -1 for none
  TensorView weights;                // [T, k] f32, or f64 for f64
  TensorView mix, vectors;           // [T, 2c] and [c, d], dtype of weights; absent when c = 0
  int64_t first = 0, copies = 0;
};

struct GroupedFfnOps {
  // out [T, d] dtype of x; tokens without any expert get zeros. z [T * k, F] dtype of x, or absent: the pre-activation of each kept row.
  void (*forward)(const GroupedFfn& f, const TensorView& z, const TensorView& out);
  // z as forward wrote it, or absent: computed again.
  void (*backward)(const GroupedFfn& f, const TensorView& z, const TensorView& d_out, const GroupedFfnGradients& g);

  // out [T, d] dtype of x: the weighted sum over a token's cheap choices, in the order of its slots.
  void (*cheap)(const CheapExperts& e, const TensorView& out);
  // dx [T, d] dtype of x, dweights [T, k], dmix [T, 2c], dvectors [c, d] dtype of weights, all overwritten; the last two absent when c = 0.
  // dvectors is summed over fixed pieces of tokens.
  void (*cheap_backward)(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix,
                         const TensorView& dvectors);
};

}  // namespace libmoe

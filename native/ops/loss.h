#pragma once
// Cross entropy, plain and fused with the output projection. Hidden states, weights and logits are f32, bf16 or f64; logits that the fused operations
// make are f32 (f64 for f64); losses f32 (f64 for f64). targets i32 [tokens]: the class of a token, or -1 for one that does not count. Every operation
// throws ERR_LIBMOE_ARGUMENT, before writing, for a target outside [-1, vocabulary).
// A token's value depends on its own row alone: not on the batch, the chunk or the threads.
#include "core/tensor.h"

namespace libmoe {

struct LinearCrossEntropy {
  TensorView hidden;   // [tokens, d]
  TensorView weight;   // [vocabulary, d]
  TensorView bias;     // [vocabulary] or absent
  TensorView targets;  // [tokens]
  TensorView loss;     // scalar: mean over the tokens that count; 0 when none does
  // Gradients of `loss`, overwritten; absent where not wanted.
  TensorView d_hidden;  // [tokens, d], dtype of hidden
  TensorView d_weight;  // [vocabulary, d], f32 (f64 for f64)
  TensorView d_bias;    // [vocabulary], f32 (f64 for f64)
  int64_t chunk = 0;    // tokens whose logits exist at a time; 0 chooses
};

struct LossOps {
  void (*linear_cross_entropy)(const LinearCrossEntropy&);
  // loss = mean cross entropy of logits [tokens, vocabulary] over the tokens that count; log_sum_exp [tokens] f32 (f64 for f64) for backward.
  void (*cross_entropy)(const TensorView& logits, const TensorView& targets, const TensorView& loss, const TensorView& log_sum_exp);
  // dlogits = dloss (softmax(logits) - one_hot(target)) / tokens that count; zero rows for the others. dloss scalar f32 (f64 for f64).
  void (*cross_entropy_backward)(const TensorView& logits, const TensorView& targets, const TensorView& log_sum_exp, const TensorView& dloss, const TensorView& dlogits);
  // log_probability[t] f64 = log softmax(logits of t)[target], 0 for target -1; greedy[t] i32 = index of the largest logit, the lowest on ties.
  void (*token_log_probabilities)(const TensorView& hidden, const TensorView& weight, const TensorView& bias, const TensorView& targets,
                                  const TensorView& log_probability, const TensorView& greedy, int64_t chunk);
  // logits [tokens, vocabulary], f32 (f64 for f64) = hidden weight^T + bias.
  void (*linear_logits)(const TensorView& hidden, const TensorView& weight, const TensorView& bias, const TensorView& logits);
  // y (+)= x * factor[0]: a gradient of the loss times the gradient that comes in. x any float; y in x's dtype or wider; factor f32 (f64 for f64).
  void (*scale_gradient)(const TensorView& x, const TensorView& factor, const TensorView& y, bool accumulate);
};

}  // namespace libmoe

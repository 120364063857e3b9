#pragma once
// From router logits to the experts of every token, their mixing weights and the statistics that losses and diagnostics read, in one pass.
#include "core/tensor.h"

namespace libmoe {

enum class Score : int { softmax, sigmoid };
// What probability sums and dense probabilities are made of; `normalised_sigmoid` is a row of sigmoids divided by its sum.
enum class Probability : int { softmax, sigmoid, normalised_sigmoid };
// From the scores of the k chosen to their weights:
//   scores       as they are
//   renormalise  s / (sum + epsilon); k equal weights where the sum is 0
//   activation   the score function applied to the k chosen logits alone: softmax over k, or each sigmoid
enum class WeightRule : int { scores, renormalise, activation };

struct GatingOptions {
  Score score = Score::softmax;
  WeightRule rule = WeightRule::renormalise;
  double epsilon = 0;
  Probability probability = Probability::softmax;
  // Group-limited selection (DeepSeek-V3): experts form `groups` equal blocks; only the `kept_groups` best blocks may be chosen from, a block
  // being worth the sum of its `group_top` best (biased) scores. groups = 1: off.
  int64_t groups = 1, kept_groups = 1, group_top = 2;
  // `experts` already holds the choices (a replayed forward pass): only weights and statistics are computed. -1 may stand anywhere then.
  bool given = false;
};

// Columns of `summary`, all but the first summed over tokens: number of tokens; entropy of the softmax in nats; entropy of the mixing weights
// rescaled to sum 1; difference of the two largest such weights; difference of the two largest softmax probabilities.
inline constexpr int kGatingSummary = 5;

struct GatingInputs {
  TensorView logits;            // f32 or f64 [T, E]; -inf forbids an expert
  TensorView bias;              // [E] or absent: added to the scores for choosing only; -inf forbids an expert
  TensorView mask;              // bool [T] or absent: false tokens choose nothing and are not counted
  TensorView sequence_offsets;  // i32 [S + 1] from 0 to T, ascending, or absent (one sequence)
};

struct GatingOutputs {
  TensorView experts;           // i32 [T, k], best first, ties to the lower index; -1 where masked or no finite candidate is left
  TensorView weights;           // [T, k], 0 where the expert is -1
  TensorView lse;               // [T] log-sum-exp of the row, 0 where masked
  TensorView sums;              // [S, E] of probabilities over the tokens of a sequence
  TensorView counts;            // i32 [S, E] over all k choices
  TensorView first_counts;      // i32 [S, E] over first choices
  TensorView summary;           // [S, kGatingSummary]
  TensorView probabilities;     // [T, E] or absent
  TensorView entropy;           // [T] entropy of the softmax, or absent
};

struct GatingGradients {
  TensorView weights, lse, sums, probabilities, entropy;  // shapes of the outputs; each may be absent
};

// Noisy logits (Shazeer et al., arXiv 1701.06538): logits = clean + noise * d with d = softplus(raw) + floor, and for each expert the number of
// tokens it may expect: the sum over tokens of Phi((clean_i - t_i) / d_i), t_i the k-th largest logit of the others.
struct NoisyInputs {
  TensorView scores;   // f32 or f64 [T, 2E]: clean, then raw
  TensorView noise;    // [T, E] normal numbers
  TensorView mask;     // bool [T] or absent: false tokens are not expected anywhere
  double floor = 0;
  int64_t k = 0;       // below E; 0: no loads
};

struct GatingOps {
  // Sums run over fixed pieces of each sequence. Throws ERR_LIBMOE_NOT_FINITE naming the first row with NaN, +inf or only -inf, or the expert whose bias is NaN or +inf,
  // ERR_LIBMOE_ARGUMENT for a given expert out of range.
  void (*forward)(const GatingInputs& in, const GatingOptions& options, const GatingOutputs& out);
  // dlogits [T, E], overwritten. experts and weights as forward made them.
  void (*backward)(const GatingInputs& in, const GatingOptions& options, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients,
                   const TensorView& dlogits);

  // logits [T, E]; load [E], summed over fixed pieces of tokens; rivals i32 [T, 2], the experts with the k-th and the next largest logit.
  void (*noisy)(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals);
  // dlogits [T, E] and dload [E] may be absent. dscores [T, 2E], overwritten.
  void (*noisy_backward)(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits, const TensorView& dload,
                         const TensorView& dscores);

  // Experts of every token where their number differs, i32 [T, E], the highest score first, ties to the lower index, then -1; most i32 [1]: of the
  // token that has most, at least 1. Without `each` all experts with a positive score; with it, i32 [1], at least 1, every expert takes the `each` tokens
  // with its highest scores, ties to the lower token (expert choice). Masked tokens have none. Throws ERR_LIBMOE_NOT_FINITE naming the first token with NaN or +inf.
  void (*lists)(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most);

  // out[t, j] = values[t, experts[t, j]], 0 for -1. values [T, E], experts i32 [T, k]; dvalues overwritten, an expert named twice adds up.
  void (*take)(const TensorView& values, const TensorView& experts, const TensorView& out);
  void (*take_backward)(const TensorView& experts, const TensorView& dout, const TensorView& dvalues);
};

}  // namespace libmoe

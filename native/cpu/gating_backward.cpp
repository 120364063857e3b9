// Backward gating: recomputes the row's scores from the logits, which costs less than reading them back would.
#include "cpu/gating_row.h"

namespace libmoe::cpu::LIBMOE_ISA {

void gating_backward(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients,
                     const TensorView& dlogits);

namespace {

// Gradient of the weights of the chosen: into d (dense row) by the logit where that is sparse, else into `score_gradient` (by the chosen).
// Returns whether score_gradient was filled.
template <class A> bool weigh_backward(const A* scores, const int32_t* chosen, const A* w, const A* g, int64_t k, const GatingOptions& o, A* d, A* score_gradient) {
  A mean = 0, sum = 0;
  for (int64_t j = 0; j < k; ++j) {
    if (chosen[j] < 0) continue;
    mean += w[j] * g[j];
    sum += scores[chosen[j]];
  }
  const bool softmax_of_k = softmax_of_chosen(o);
  for (int64_t j = 0; j < k; ++j) {
    if (chosen[j] < 0) continue;
    if (softmax_of_k) {
      d[chosen[j]] += w[j] * (g[j] - mean);
      continue;
    }
    if (o.rule == WeightRule::renormalise) score_gradient[j] = sum > 0 ? (g[j] - mean) / (sum + A(o.epsilon)) : A(0);
    else score_gradient[j] = g[j];
    if (o.score == Score::sigmoid) d[chosen[j]] += score_gradient[j] * scores[chosen[j]] * (A(1) - scores[chosen[j]]);
  }
  return o.score == Score::softmax && !softmax_of_k;
}

template <class A> void backward_typed(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients,
                                       const TensorView& dlogits) {
  using V = Vec<A>;
  const int64_t tokens = in.logits.shape[0], n = in.logits.shape[1], k = experts.shape[1];
  const TokenPieces pieces(in.sequence_offsets, tokens);
  const bool* mask = in.mask.as<bool>();
  const A* gs = gradients.sums.as<A>();
  parallel_for(pieces.count(), [&](int64_t piece) {
    const int64_t s = pieces.sequence_of(piece), begin = pieces.begin_of(s) + (piece - pieces.first[s]) * kTokenPiece, end = std::min(begin + kTokenPiece, pieces.end_of(s));
    A *p = scratch_of<A>(3, 3 * (n + V::lanes) + k), *sigmoids = p + n + V::lanes, *q = sigmoids + n + V::lanes, *score_gradient = q + n + V::lanes;
    for (int64_t t = begin; t < end; ++t) {
      const A* x = in.logits.as<A>() + t * n;
      A* d = dlogits.as<A>() + t * n;
      std::fill(d, d + n, A(0));
      if (mask && !mask[t]) continue;
      const A lse = softmax_row(x, p, n, row_max(x, n));
      if (uses_sigmoids(o)) sigmoid_row(x, sigmoids, n);

      // Everything of the form p_i (c_i - sum p c): probabilities and scores of softmax, log-sum-exp and entropy.
      if (gradients.sums || gradients.probabilities) {
        const A* gp = gradients.probabilities ? gradients.probabilities.as<A>() + t * n : nullptr;
        for (int64_t i = 0; i < n; ++i) q[i] = (gs ? gs[s * n + i] : A(0)) + (gp ? gp[i] : A(0));
        const auto dot = [&](const A* a) { return row_sum<A>(n, [&](int64_t i, int count) { return load_count(a + i, count) * load_count(q + i, count); }); };
        if (o.probability == Probability::softmax) {
          const V mean(dot(p));
          for_vectors<A>(n, [&](int64_t i, int count) { store_count(d + i, load_count(p + i, count) * (load_count(q + i, count) - mean), count); });
        } else {
          const bool normalised = o.probability == Probability::normalised_sigmoid;
          const A sum = normalised ? row_sum<A>(n, [&](int64_t i, int count) { return load_count(sigmoids + i, count); }) : A(1);
          const V mean(normalised ? dot(sigmoids) / sum : A(0)), scale(A(1) / sum), one(A(1));
          for_vectors<A>(n, [&](int64_t i, int count) {
            const V v = load_count(sigmoids + i, count);
            store_count(d + i, (load_count(q + i, count) - mean) * scale * v * (one - v), count);
          });
        }
      }
      if (gradients.weights) {
        const int32_t* chosen = experts.as<int32_t>() + t * k;
        const A *w = weights.as<A>() + t * k, *g = gradients.weights.as<A>() + t * k;
        if (weigh_backward(o.score == Score::softmax ? p : sigmoids, chosen, w, g, k, o, d, score_gradient)) {
          A mean = 0;
          for (int64_t j = 0; j < k; ++j)
            if (chosen[j] >= 0) mean += p[chosen[j]] * score_gradient[j];
          for_vectors<A>(n, [&](int64_t i, int count) { store_count(d + i, load_count(d + i, count) - load_count(p + i, count) * V(mean), count); });
          for (int64_t j = 0; j < k; ++j)
            if (chosen[j] >= 0) d[chosen[j]] += p[chosen[j]] * score_gradient[j];
        }
      }
      if (gradients.lse) {
        const V g(gradients.lse.as<A>()[t]);
        for_vectors<A>(n, [&](int64_t i, int count) { store_count(d + i, fma(g, load_count(p + i, count), load_count(d + i, count)), count); });
      }
      if (gradients.entropy) {
        const A entropy = entropy_row(x, p, lse, n);
        const V g(gradients.entropy.as<A>()[t]), shift(entropy - lse);
        for_vectors<A>(n, [&](int64_t i, int count) {
          const V r = load_count(p + i, count);
          const V slope = select<A>(r.v > V::zero().v, r * (load_count(x + i, count) + shift), V::zero());
          store_count(d + i, load_count(d + i, count) - g * slope, count);
        });
      }
    }
  });
}

}  // namespace

void gating_backward(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients,
                     const TensorView& dlogits) {
  with_wide(in.logits.dtype, [&]<class A>() { backward_typed<A>(in, o, experts, weights, gradients, dlogits); });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

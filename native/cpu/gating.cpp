// Reads the logits once from memory: a row of at most a few thousand numbers stays in the first-level cache while scores, choice, weights and
// statistics are taken from it. Pieces of 64 tokens of one sequence go to the threads; their sums are added in order afterwards, so a sequence's
// statistics depend neither on threads nor on the other sequences.
#include "ops/gating.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "cpu/dispatch.h"
#include "cpu/simd/math.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kPiece = 64;
constexpr int kMaxChoices = 1024;

template <class F> void with_wide(Dtype dtype, F&& body) {
  if (dtype == Dtype::f64) body.template operator()<double>();
  else body.template operator()<float>();
}

template <class A> A scalar_log(A x) { return log(Vec<A>(x)).v[0]; }
template <class A> A scalar_exp(A x) { return exp(Vec<A>(x)).v[0]; }
template <class A> A scalar_sigmoid(A x) { return sigmoid(Vec<A>(x)).v[0]; }
template <class A> constexpr A kInfinity = std::numeric_limits<A>::infinity();

// Sum over a row of f(offset, count), whose lanes past `count` must be zero.
template <class A, class F> A row_sum(int64_t n, F&& f) {
  Vec<A> sum = Vec<A>::zero();
  for_vectors<A>(n, [&](int64_t i, int count) { sum += f(i, count); });
  return sum_lanes(sum);
}

template <class A> A row_max(const A* x, int64_t n) {
  Vec<A> best(-kInfinity<A>);
  for_vectors<A>(n, [&](int64_t i, int count) { best = max(load_count(x + i, count, -kInfinity<A>), best); });
  return max_lanes(best);
}

// True when every number is below +inf; NaN is not.
template <class A> bool all_below_infinity(const A* x, int64_t n) {
  using V = Vec<A>;
  V good(A(1));
  for_vectors<A>(n, [&](int64_t i, int count) { good = select<A>(load_count(x + i, count).v < V(kInfinity<A>).v, good, V::zero()); });
  return sum_lanes(good) == A(V::lanes);
}

// p = softmax(x); returns log-sum-exp.
template <class A> A softmax_row(const A* x, A* p, int64_t n) {
  using V = Vec<A>;
  const V top(row_max(x, n));
  for_vectors<A>(n, [&](int64_t i, int count) { store_count(p + i, exp(load_count(x + i, count) - top), count); });
  const A sum = row_sum<A>(n, [&](int64_t i, int count) { return load_count(p + i, count); });
  const V scale(A(1) / sum);
  for_vectors<A>(n, [&](int64_t i, int count) { store_count(p + i, load_count(p + i, count) * scale, count); });
  return top.v[0] + scalar_log(sum);
}

template <class A> void sigmoid_row(const A* x, A* s, int64_t n) {
  for_vectors<A>(n, [&](int64_t i, int count) { store_count(s + i, sigmoid(load_count(x + i, count)), count); });
}

// -sum p log p with log p = x - lse; a forbidden expert adds nothing.
template <class A> A entropy_row(const A* x, const A* p, A lse, int64_t n) {
  using V = Vec<A>;
  return -row_sum<A>(n, [&](int64_t i, int count) {
    const V q = load_count(p + i, count);
    return select<A>(q.v > V::zero().v, q * (load_count(x + i, count) - V(lse)), V::zero());
  });
}

// The k largest values, best first, ties to the lower index; candidates at -inf are left out and the places filled with -1.
template <class A> void choose(const A* value, int64_t n, int64_t k, int32_t* chosen) {
  A best[kMaxChoices];
  int64_t have = 0;
  for (int64_t i = 0; i < n; ++i) {
    const A v = value[i];
    if (v == -kInfinity<A> || (have == k && !(v > best[k - 1]))) continue;
    int64_t at = have < k ? have++ : k - 1;
    for (; at > 0 && v > best[at - 1]; --at) {
      best[at] = best[at - 1];
      chosen[at] = chosen[at - 1];
    }
    best[at] = v;
    chosen[at] = int32_t(i);
  }
  std::fill(chosen + have, chosen + k, -1);
}

// Forbids every block of experts outside the best ones.
template <class A> void limit_groups(A* value, int64_t n, const GatingOptions& o) {
  const int64_t size = n / o.groups, top = std::min(o.group_top, size);
  A* worth = scratch_of<A>(4, o.groups);
  int32_t* picked = scratch_of<int32_t>(5, std::max(top, o.groups));
  for (int64_t g = 0; g < o.groups; ++g) {
    choose(value + g * size, size, top, picked);
    A sum = picked[0] < 0 ? -kInfinity<A> : A(0);
    for (int64_t j = 0; j < top && picked[j] >= 0; ++j) sum += value[g * size + picked[j]];
    worth[g] = sum;
  }
  choose(worth, o.groups, o.kept_groups, picked);
  for (int64_t g = 0; g < o.groups; ++g) worth[g] = 0;
  for (int64_t j = 0; j < o.kept_groups; ++j)
    if (picked[j] >= 0) worth[picked[j]] = 1;
  for (int64_t i = 0; i < n; ++i)
    if (worth[i / size] == 0) value[i] = -kInfinity<A>;
}

// Weights of the chosen, from their logits and scores; a place without expert gets 0.
template <class A> void weigh(const A* logits, const A* scores, const int32_t* chosen, int64_t k, const GatingOptions& o, A* w) {
  const bool softmax_of_k = o.score == Score::softmax && (o.rule == WeightRule::activation || (o.rule == WeightRule::renormalise && o.epsilon == 0));
  A top = -kInfinity<A>, sum = 0;
  int64_t have = 0;
  if (softmax_of_k)  // the same as dividing the probabilities by their sum, but it cannot underflow
    for (int64_t j = 0; j < k; ++j)
      if (chosen[j] >= 0) top = std::max(top, logits[chosen[j]]);
  for (int64_t j = 0; j < k; ++j) {
    w[j] = 0;
    if (chosen[j] < 0) continue;
    w[j] = softmax_of_k ? scalar_exp(logits[chosen[j]] - top) : scores[chosen[j]];
    sum += w[j];
    ++have;
  }
  if (!softmax_of_k && o.rule != WeightRule::renormalise) return;
  for (int64_t j = 0; j < k; ++j)
    if (chosen[j] >= 0) w[j] = sum > 0 ? w[j] / (sum + (softmax_of_k ? A(0) : A(o.epsilon))) : A(1) / A(have);
}

// Adds the diagnostics of one token to its summary.
template <class A> void summarise(const A* p, const A* w, int64_t n, int64_t k, A entropy, A* summary) {
  A first = 0, second = 0, total = 0, weight_entropy = 0, heaviest = 0, next = 0;
  for (int64_t i = 0; i < n; ++i) {
    second = std::max(second, std::min(first, p[i]));
    first = std::max(first, p[i]);
  }
  for (int64_t j = 0; j < k; ++j) {
    next = std::max(next, std::min(heaviest, w[j]));
    heaviest = std::max(heaviest, w[j]);
    total += w[j];
  }
  for (int64_t j = 0; j < k; ++j)
    if (w[j] > 0) weight_entropy -= w[j] / total * scalar_log(w[j] / total);
  summary[0] += 1;
  summary[1] += entropy;
  summary[2] += weight_entropy;
  summary[3] += total > 0 ? (heaviest - next) / total : A(0);
  summary[4] += first - second;
}

// The pieces of all sequences: piece i of sequence s covers tokens begin .. end.
struct Pieces {
  const int32_t* offsets;  // null: one sequence
  int64_t sequences, tokens;
  int64_t* first;  // first[s] is the number of pieces before sequence s

  Pieces(const TensorView& sequence_offsets, int64_t t)
      : offsets(sequence_offsets.as<int32_t>()), sequences(sequence_offsets ? sequence_offsets.elements() - 1 : 1), tokens(t), first(scratch_of<int64_t>(0, sequences + 1)) {
    first[0] = 0;
    if (offsets) {
      bool fits = offsets[0] == 0 && offsets[sequences] == t;
      for (int64_t s = 0; s < sequences; ++s) fits &= offsets[s] <= offsets[s + 1];
      if (!fits) fail("ERR_LIBMOE_ARGUMENT", "sequence offsets must ascend from 0 to the number of tokens, " + std::to_string(t));
    }
    for (int64_t s = 0; s < sequences; ++s) first[s + 1] = first[s] + (end_of(s) - begin_of(s) + kPiece - 1) / kPiece;
  }
  int64_t begin_of(int64_t s) const { return offsets ? offsets[s] : 0; }
  int64_t end_of(int64_t s) const { return offsets ? offsets[s + 1] : tokens; }
  int64_t count() const { return first[sequences]; }
  int64_t sequence_of(int64_t piece) const {
    int64_t low = 0, high = sequences;  // the last s with first[s] <= piece and pieces of its own
    while (high - low > 1) (first[(low + high) / 2] <= piece ? low : high) = (low + high) / 2;
    return low;
  }
};

template <class A> void forward_typed(const GatingInputs& in, const GatingOptions& o, const GatingOutputs& out) {
  const int64_t tokens = in.logits.shape[0], n = in.logits.shape[1], k = out.experts.shape[1];
  const Pieces pieces(in.sequence_offsets, tokens);
  const bool* mask = in.mask.as<bool>();
  const A *logits = in.logits.as<A>(), *bias = in.bias.as<A>();
  const int64_t width = n + kGatingSummary;
  A* partial = scratch_of<A>(1, std::max<int64_t>(1, pieces.count()) * width);
  int32_t* partial_counts = scratch_of<int32_t>(2, std::max<int64_t>(1, pieces.count()) * 2 * n);
  std::atomic<int64_t> bad{tokens};
  if (o.given)
    for (int64_t i = 0; i < tokens * k; ++i)
      if (const int32_t e = out.experts.as<int32_t>()[i]; e < -1 || e >= n)
        fail("ERR_LIBMOE_ARGUMENT", "given experts must be -1 or 0 to " + std::to_string(n - 1) + ", got " + std::to_string(e) + " for token " + std::to_string(i / k));

  parallel_for(pieces.count(), [&](int64_t piece) {
    const int64_t s = pieces.sequence_of(piece), begin = pieces.begin_of(s) + (piece - pieces.first[s]) * kPiece, end = std::min(begin + kPiece, pieces.end_of(s));
    A *sums = partial + piece * width, *summary = sums + n;
    int32_t *counts = partial_counts + piece * 2 * n, *first_counts = counts + n;
    std::fill(sums, sums + width, A(0));
    std::fill(counts, counts + 2 * n, 0);
    A *p = scratch_of<A>(3, 3 * (n + Vec<A>::lanes)), *sigmoids = p + n + Vec<A>::lanes, *value = sigmoids + n + Vec<A>::lanes;
    for (int64_t t = begin; t < end; ++t) {
      const A* x = logits + t * n;
      int32_t* chosen = out.experts.as<int32_t>() + t * k;
      A *w = out.weights.as<A>() + t * k, *dense = out.probabilities ? out.probabilities.as<A>() + t * n : nullptr;
      if (mask && !mask[t]) {
        if (!o.given) std::fill(chosen, chosen + k, -1);
        std::fill(w, w + k, A(0));
        out.lse.as<A>()[t] = 0;
        if (dense) std::fill(dense, dense + n, A(0));
        if (out.entropy) out.entropy.as<A>()[t] = 0;
        continue;
      }
      if (!all_below_infinity(x, n) || row_max(x, n) == -kInfinity<A>) {
        int64_t seen = bad.load();
        while (t < seen && !bad.compare_exchange_weak(seen, t)) {}
        continue;
      }
      const A lse = softmax_row(x, p, n), entropy = entropy_row(x, p, lse, n);
      out.lse.as<A>()[t] = lse;
      if (out.entropy) out.entropy.as<A>()[t] = entropy;
      if (o.score == Score::sigmoid || o.probability != Probability::softmax) sigmoid_row(x, sigmoids, n);
      const A* scores = o.score == Score::softmax ? p : sigmoids;
      if (o.given) {  // nothing to choose
      } else if (!bias && o.groups == 1) choose(x, n, k, chosen);  // by the logit: saturated scores would tie
      else {
        for (int64_t i = 0; i < n; ++i) value[i] = x[i] == -kInfinity<A> ? x[i] : scores[i] + (bias ? bias[i] : A(0));
        if (o.groups > 1) limit_groups(value, n, o);
        choose(value, n, k, chosen);
      }
      weigh(x, scores, chosen, k, o, w);
      for (int64_t j = 0; j < k; ++j)
        if (chosen[j] >= 0) {
          ++counts[chosen[j]];
          if (j == 0) ++first_counts[chosen[j]];
        }
      summarise(p, w, n, k, entropy, summary);
      const A* source = o.probability == Probability::softmax ? p : sigmoids;
      const A sum = o.probability == Probability::normalised_sigmoid ? row_sum<A>(n, [&](int64_t i, int count) { return load_count(source + i, count); }) : A(1);
      const Vec<A> scale(A(1) / sum);
      for_vectors<A>(n, [&](int64_t i, int count) {
        const Vec<A> q = load_count(source + i, count) * scale;
        store_count(sums + i, load_count(sums + i, count) + q, count);
        if (dense) store_count(dense + i, q, count);
      });
    }
  });
  if (bad < tokens)
    fail("ERR_LIBMOE_NOT_FINITE", "the logits of token " + std::to_string(bad.load()) + " hold NaN, +infinity or nothing but -infinity; lower the learning rate, or look for NaN in the input");

  for (int64_t s = 0; s < pieces.sequences; ++s) {
    A *sums = out.sums.as<A>() + s * n, *summary = out.summary.as<A>() + s * kGatingSummary;
    int32_t *counts = out.counts.as<int32_t>() + s * n, *first_counts = out.first_counts.as<int32_t>() + s * n;
    std::fill(sums, sums + n, A(0));
    std::fill(summary, summary + kGatingSummary, A(0));
    std::fill(counts, counts + n, 0);
    std::fill(first_counts, first_counts + n, 0);
    for (int64_t piece = pieces.first[s]; piece < pieces.first[s + 1]; ++piece) {
      for (int64_t i = 0; i < n; ++i) {
        sums[i] += partial[piece * width + i];
        counts[i] += partial_counts[piece * 2 * n + i];
        first_counts[i] += partial_counts[piece * 2 * n + n + i];
      }
      for (int i = 0; i < kGatingSummary; ++i) summary[i] += partial[piece * width + n + i];
    }
  }
}

// Gradient of the weights of the chosen: into d (dense row) by the logit where that is sparse, else into `score_gradient` (by the chosen).
// Returns whether score_gradient was filled.
template <class A> bool weigh_backward(const A* scores, const int32_t* chosen, const A* w, const A* g, int64_t k, const GatingOptions& o, A* d, A* score_gradient) {
  A mean = 0, sum = 0;
  for (int64_t j = 0; j < k; ++j) {
    if (chosen[j] < 0) continue;
    mean += w[j] * g[j];
    sum += scores[chosen[j]];
  }
  const bool softmax_of_k = o.score == Score::softmax && (o.rule == WeightRule::activation || (o.rule == WeightRule::renormalise && o.epsilon == 0));
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
  const Pieces pieces(in.sequence_offsets, tokens);
  const bool* mask = in.mask.as<bool>();
  const A* gs = gradients.sums.as<A>();
  parallel_for(pieces.count(), [&](int64_t piece) {
    const int64_t s = pieces.sequence_of(piece), begin = pieces.begin_of(s) + (piece - pieces.first[s]) * kPiece, end = std::min(begin + kPiece, pieces.end_of(s));
    A *p = scratch_of<A>(3, 3 * (n + V::lanes) + k), *sigmoids = p + n + V::lanes, *q = sigmoids + n + V::lanes, *score_gradient = q + n + V::lanes;
    for (int64_t t = begin; t < end; ++t) {
      const A* x = in.logits.as<A>() + t * n;
      A* d = dlogits.as<A>() + t * n;
      std::fill(d, d + n, A(0));
      if (mask && !mask[t]) continue;
      const A lse = softmax_row(x, p, n);
      if (o.score == Score::sigmoid || o.probability != Probability::softmax) sigmoid_row(x, sigmoids, n);

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

void forward(const GatingInputs& in, const GatingOptions& o, const GatingOutputs& out) {
  with_wide(in.logits.dtype, [&]<class A>() { forward_typed<A>(in, o, out); });
}

void backward(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients, const TensorView& dlogits) {
  with_wide(in.logits.dtype, [&]<class A>() { backward_typed<A>(in, o, experts, weights, gradients, dlogits); });
}

}  // namespace

extern const GatingOps gating_ops;
const GatingOps gating_ops = {forward, backward};

}  // namespace libmoe::cpu::LIBMOE_ISA

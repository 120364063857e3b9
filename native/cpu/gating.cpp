// Reads the logits once from memory: a row of at most a few thousand numbers stays in the first-level cache while scores, choice, weights and
// statistics are taken from it. The sums of pieces are added in order afterwards, so a sequence's statistics depend neither on threads nor on
// the other sequences.
#include <atomic>
#include <limits>

#include "cpu/gating_row.h"

namespace libmoe::cpu::LIBMOE_ISA {

// gating_backward.cpp
void gating_backward(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients,
                     const TensorView& dlogits);

// gating_noisy.cpp and gating_lists.cpp
void noisy(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals);
void noisy_backward(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits, const TensorView& dload,
                    const TensorView& dscores);
void expert_lists(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most);
void take(const TensorView& values, const TensorView& experts, const TensorView& out);
void take_backward(const TensorView& experts, const TensorView& dout, const TensorView& dvalues);

namespace {

constexpr int kMaxChoices = 1024;

template <class A> constexpr A kInfinity = std::numeric_limits<A>::infinity();

// True when every number is below +inf; NaN is not.
template <class A> bool all_below_infinity(const A* x, int64_t n) {
  using V = Vec<A>;
  V good(A(1));
  for_vectors<A>(n, [&](int64_t i, int count) { good = select<A>(load_count(x + i, count).v < V(kInfinity<A>).v, good, V::zero()); });
  return sum_lanes(good) == A(V::lanes);
}

// What choose() does, by counting for every candidate how many are better, a vector of candidates at once: cheaper than sorting where many are
// wanted of few.
template <class A> void choose_by_rank(const A* value, int64_t n, int64_t k, int32_t* chosen) {
  using V = Vec<A>;
  constexpr int L = V::lanes;
  const V one(A(1));
  V lane;
  for (int i = 0; i < L; ++i) lane.v[i] = A(i);
  std::fill(chosen, chosen + k, -1);
  for (int64_t c = 0; c < n; c += L) {
    const int count = int(std::min<int64_t>(L, n - c));
    const V own = load_count(value + c, count, -kInfinity<A>);
    V rank = V::zero();
    for (int64_t j = 0; j < c; ++j) rank += select<A>(V(value[j]).v >= own.v, one, V::zero());  // an equal one before wins
    for (int j = 0; j < count; ++j) {
      const V other(value[c + j]);
      rank += select<A>((other.v > own.v) | ((other.v == own.v) & (lane.v > V(A(j)).v)), one, V::zero());
    }
    for (int64_t j = c + count; j < n; ++j) rank += select<A>(V(value[j]).v > own.v, one, V::zero());
    for (int i = 0; i < count; ++i)
      if (value[c + i] != -kInfinity<A> && rank.v[i] < A(k)) chosen[int64_t(rank.v[i])] = int32_t(c + i);
  }
}

// The k largest values, best first, ties to the lower index; candidates at -inf are left out and the places filled with -1.
template <class A> void choose(const A* value, int64_t n, int64_t k, int32_t* chosen) {
  if (k >= 16 && n <= 512) return choose_by_rank(value, n, k, chosen);
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
  const bool softmax_of_k = softmax_of_chosen(o);
  A top = -kInfinity<A>, sum = 0;
  int64_t have = 0;
  if (softmax_of_k)
    for (int64_t j = 0; j < k; ++j)
      if (chosen[j] >= 0) top = std::max(top, logits[chosen[j]]);
  for (int64_t j = 0; j < k; ++j) w[j] = chosen[j] < 0 ? A(0) : softmax_of_k ? logits[chosen[j]] - top : scores[chosen[j]];
  if (softmax_of_k) for_vectors<A>(k, [&](int64_t j, int count) { store_count(w + j, exp(load_count(w + j, count)), count); });
  for (int64_t j = 0; j < k; ++j) {
    if (chosen[j] < 0) w[j] = 0;
    sum += w[j];
    have += chosen[j] >= 0;
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
  const Vec<A> whole(total);
  for (int64_t j = 0; j < k; j += Vec<A>::lanes) {
    const int count = int(std::min<int64_t>(Vec<A>::lanes, k - j));
    const Vec<A> q = load_count(w + j, count) / whole, terms = q * log(q);
    for (int i = 0; i < count; ++i)
      if (w[j + i] > 0) weight_entropy -= terms.v[i];
  }
  summary[0] += 1;
  summary[1] += entropy;
  summary[2] += weight_entropy;
  summary[3] += total > 0 ? (heaviest - next) / total : A(0);
  summary[4] += first - second;
}

template <class A> void forward_typed(const GatingInputs& in, const GatingOptions& o, const GatingOutputs& out) {
  const int64_t tokens = in.logits.shape[0], n = in.logits.shape[1], k = out.experts.shape[1];
  const TokenPieces pieces(in.sequence_offsets, tokens);
  const bool* mask = in.mask.as<bool>();
  const A *logits = in.logits.as<A>(), *bias = in.bias.as<A>();
  const int64_t width = n + kGatingSummary;
  A* partial = scratch_of<A>(1, std::max<int64_t>(1, pieces.count()) * width);
  int32_t* partial_counts = scratch_of<int32_t>(2, std::max<int64_t>(1, pieces.count()) * 2 * n);
  std::atomic<int64_t> bad{tokens};
  if (bias && !o.given)
    for (int64_t i = 0; i < n; ++i)
      if (!(bias[i] < kInfinity<A>))
        fail("ERR_LIBMOE_NOT_FINITE", "the selection bias of expert " + std::to_string(i) + " is NaN or +infinity; look at what updates it");
  if (o.given)
    for (int64_t i = 0; i < tokens * k; ++i)
      if (const int32_t e = out.experts.as<int32_t>()[i]; e < -1 || e >= n)
        fail("ERR_LIBMOE_ARGUMENT", "given experts must be -1 or 0 to " + std::to_string(n - 1) + ", got " + std::to_string(e) + " for token " + std::to_string(i / k));

  parallel_for(pieces.count(), [&](int64_t piece) {
    const int64_t s = pieces.sequence_of(piece), begin = pieces.begin_of(s) + (piece - pieces.first[s]) * kTokenPiece, end = std::min(begin + kTokenPiece, pieces.end_of(s));
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
      const A largest = row_max(x, n);
      if (!all_below_infinity(x, n) || largest == -kInfinity<A>) {
        int64_t seen = bad.load();
        while (t < seen && !bad.compare_exchange_weak(seen, t)) {}
        continue;
      }
      const A lse = softmax_row(x, p, n, largest), entropy = entropy_row(x, p, lse, n);
      out.lse.as<A>()[t] = lse;
      if (out.entropy) out.entropy.as<A>()[t] = entropy;
      if (uses_sigmoids(o)) sigmoid_row(x, sigmoids, n);
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

void forward(const GatingInputs& in, const GatingOptions& o, const GatingOutputs& out) {
  with_wide(in.logits.dtype, [&]<class A>() { forward_typed<A>(in, o, out); });
}

}  // namespace

extern const GatingOps gating_ops;
const GatingOps gating_ops = {forward, gating_backward, noisy, noisy_backward, expert_lists, take, take_backward};

}  // namespace libmoe::cpu::LIBMOE_ISA

#pragma once
// What the forward and backward passes of gating share: the functions of one token's row of logits, and how tokens are cut into pieces.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "cpu/simd/row.h"
#include "ops/gating.h"

namespace libmoe::cpu::LIBMOE_ISA {

// Tokens of a piece: sums run over pieces of one sequence, and the pieces go to the threads.
inline constexpr int64_t kTokenPiece = 64;

template <class F> inline void with_wide(Dtype dtype, F&& body) {
  if (dtype == Dtype::f64) body.template operator()<double>();
  else body.template operator()<float>();
}

inline bool uses_sigmoids(const GatingOptions& o) { return o.score == Score::sigmoid || o.probability != Probability::softmax; }

// The weights are a softmax of the chosen logits: the same as dividing the probabilities by their sum, but it cannot underflow.
inline bool softmax_of_chosen(const GatingOptions& o) {
  return o.score == Score::softmax && (o.rule == WeightRule::activation || (o.rule == WeightRule::renormalise && o.epsilon == 0));
}

// p = softmax(x), `largest` being the row's maximum; returns log-sum-exp.
template <class A> inline A softmax_row(const A* x, A* p, int64_t n, A largest) {
  using V = Vec<A>;
  const V top(largest);
  for_vectors<A>(n, [&](int64_t i, int count) { store_count(p + i, exp(load_count(x + i, count) - top), count); });
  const A sum = row_sum<A>(n, [&](int64_t i, int count) { return load_count(p + i, count); });
  const V scale(A(1) / sum);
  for_vectors<A>(n, [&](int64_t i, int count) { store_count(p + i, load_count(p + i, count) * scale, count); });
  return largest + log_one(sum);
}

template <class A> inline void sigmoid_row(const A* x, A* s, int64_t n) {
  for_vectors<A>(n, [&](int64_t i, int count) { store_count(s + i, sigmoid(load_count(x + i, count)), count); });
}

// -sum p log p with log p = x - lse; a forbidden expert adds nothing.
template <class A> inline A entropy_row(const A* x, const A* p, A lse, int64_t n) {
  using V = Vec<A>;
  return -row_sum<A>(n, [&](int64_t i, int count) {
    const V q = load_count(p + i, count);
    return select<A>(q.v > V::zero().v, q * (load_count(x + i, count) - V(lse)), V::zero());
  });
}

// The pieces of all sequences, numbered through.
struct TokenPieces {
  const int32_t* offsets;  // null: one sequence
  int64_t sequences, tokens;
  int64_t* first;  // first[s] is the number of pieces before sequence s

  TokenPieces(const TensorView& sequence_offsets, int64_t t)
      : offsets(sequence_offsets.as<int32_t>()), sequences(sequence_offsets ? sequence_offsets.elements() - 1 : 1), tokens(t), first(scratch_of<int64_t>(0, sequences + 1)) {
    first[0] = 0;
    if (offsets) {
      bool fits = offsets[0] == 0 && offsets[sequences] == t;
      for (int64_t s = 0; s < sequences; ++s) fits &= offsets[s] <= offsets[s + 1];
      if (!fits) fail("ERR_LIBMOE_ARGUMENT", "sequence offsets must ascend from 0 to the number of tokens, " + std::to_string(t));
    }
    for (int64_t s = 0; s < sequences; ++s) first[s + 1] = first[s] + (end_of(s) - begin_of(s) + kTokenPiece - 1) / kTokenPiece;
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

}  // namespace libmoe::cpu::LIBMOE_ISA

// Noisy logits and the smooth estimate of every expert's load. One pass over [T, 2E] scores in, [T, E] logits out; about 60 operations per token
// and expert, most of them softplus and erf. Pieces of tokens go to the threads, their loads are added in order.
#include "cpu/gating_row.h"
#include "cpu/simd/activation.h"

namespace libmoe::cpu::LIBMOE_ISA {

void noisy(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals);
void noisy_backward(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits, const TensorView& dload,
                    const TensorView& dscores);

namespace {

// Where the k-th and the (k+1)-th largest number are, ties to the lower index; -1 where there are not so many (NaN).
template <class A> void find_rivals(const A* x, int64_t n, int64_t k, A* best, int32_t* at, int32_t* rivals) {
  int64_t have = 0;
  for (int64_t i = 0; i < n; ++i) {
    const A v = x[i];
    if (v != v || (have > k && !(v > best[k]))) continue;
    int64_t place = have <= k ? have++ : k;
    for (; place > 0 && v > best[place - 1]; --place) {
      best[place] = best[place - 1];
      at[place] = at[place - 1];
    }
    best[place] = v;
    at[place] = int32_t(i);
  }
  rivals[0] = have > k ? at[k - 1] : -1;
  rivals[1] = have > k ? at[k] : -1;
}

// What the numbers of a row that are above `next`, and those that are not, have to exceed.
template <class A> inline Vec<A> threshold(Vec<A> logits, A kth, A next) { return select<A>(logits.v > Vec<A>(next).v, Vec<A>(next), Vec<A>(kth)); }

// Never 0, so that quotients by it, and their products with a vanishing density, stay numbers.
template <class A> inline Vec<A> deviation(Vec<A> raw, A floor) {
  constexpr A least = sizeof(A) == 4 ? A(1e-12) : A(1e-100);
  return max(apply<Unary::softplus>(raw) + Vec<A>(floor), Vec<A>(least));
}

template <class A> void noisy_typed(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals) {
  using V = Vec<A>;
  const int64_t tokens = logits.shape[0], n = logits.shape[1], k = in.k, pieces = (tokens + kTokenPiece - 1) / kTokenPiece;
  const bool* mask = in.mask.as<bool>();
  A* partial = scratch_of<A>(1, pieces * n);
  parallel_for(pieces, [&](int64_t piece) {
    A *sums = partial + piece * n, *best = scratch_of<A>(3, k + 1);
    int32_t* at = scratch_of<int32_t>(4, k + 1);
    std::fill(sums, sums + n, A(0));
    for (int64_t t = piece * kTokenPiece; t < std::min(tokens, (piece + 1) * kTokenPiece); ++t) {
      const A *clean = in.scores.as<A>() + t * 2 * n, *raw = clean + n, *noise = in.noise.as<A>() + t * n;
      A* out = logits.as<A>() + t * n;
      for_vectors<A>(n, [&](int64_t i, int count) {
        store_count(out + i, fma(load_count(noise + i, count), deviation(load_count(raw + i, count), A(in.floor)), load_count(clean + i, count)), count);
      });
      int32_t* rival = rivals.as<int32_t>() + t * 2;
      rival[0] = rival[1] = -1;
      if (k == 0 || (mask && !mask[t])) continue;
      find_rivals(out, n, k, best, at, rival);
      if (rival[0] < 0) continue;
      const A kth = out[rival[0]], next = out[rival[1]];
      const V half(A(0.5)), root(A(0.70710678118654752440));
      for_vectors<A>(n, [&](int64_t i, int count) {
        const V z = (load_count(clean + i, count) - threshold(load_count(out + i, count), kth, next)) / deviation(load_count(raw + i, count), A(in.floor));
        store_count(sums + i, load_count(sums + i, count) + fma(half, erf(z * root), half), count);
      });
    }
  });
  A* total = load.as<A>();
  std::fill(total, total + n, A(0));
  for (int64_t piece = 0; piece < pieces; ++piece)
    for (int64_t i = 0; i < n; ++i) total[i] += partial[piece * n + i];
}

template <class A> void noisy_backward_typed(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits,
                                             const TensorView& dload, const TensorView& dscores) {
  using V = Vec<A>;
  const int64_t tokens = logits.shape[0], n = logits.shape[1];
  const A* gl = dload.as<A>();
  parallel_ranges(tokens, kTokenPiece, [&](int64_t begin, int64_t end) {
    A* g = scratch_of<A>(3, 2 * (n + V::lanes));
    A* dd = g + n + V::lanes;
    for (int64_t t = begin; t < end; ++t) {
      const A *clean = in.scores.as<A>() + t * 2 * n, *raw = clean + n, *noise = in.noise.as<A>() + t * n, *out = logits.as<A>() + t * n;
      const A* given = dlogits ? dlogits.as<A>() + t * n : nullptr;
      A *dclean = dscores.as<A>() + t * 2 * n, *draw = dclean + n;
      const int32_t* rival = rivals.as<int32_t>() + t * 2;
      for (int64_t i = 0; i < n; ++i) g[i] = given ? given[i] : A(0);
      std::fill(dd, dd + n, A(0));
      std::fill(dclean, dclean + n, A(0));
      if (gl && rival[0] >= 0) {
        const A kth = out[rival[0]], next = out[rival[1]];
        const V factor(A(0.39894228040143267794)), half(A(0.5));
        // Slope of the probability in the clean logit; the threshold has the negative of it, the deviation that times -z.
        for_vectors<A>(n, [&](int64_t i, int count) {
          const V d = deviation(load_count(raw + i, count), A(in.floor));
          const V z = (load_count(clean + i, count) - threshold(load_count(out + i, count), kth, next)) / d;
          const V slope = load_count(gl + i, count) * factor * exp(-half * z * z) / d;
          store_count(dclean + i, slope, count);
          store_count(dd + i, -slope * z, count);
        });
        const auto above = [&](int64_t i, int count) { return load_count(out + i, count).v > V(next).v; };
        g[rival[1]] -= row_sum<A>(n, [&](int64_t i, int count) { return select<A>(above(i, count), load_count(dclean + i, count), V::zero()); });
        g[rival[0]] -= row_sum<A>(n, [&](int64_t i, int count) { return select<A>(above(i, count), V::zero(), load_count(dclean + i, count)); });
      }
      for_vectors<A>(n, [&](int64_t i, int count) {
        const V total = load_count(g + i, count);
        store_count(dclean + i, load_count(dclean + i, count) + total, count);
        store_count(draw + i, fma(total, load_count(noise + i, count), load_count(dd + i, count)) * sigmoid(load_count(raw + i, count)), count);
      });
    }
  });
}

}  // namespace

void noisy(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals) {
  with_wide(logits.dtype, [&]<class A>() { noisy_typed<A>(in, logits, load, rivals); });
}

void noisy_backward(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits, const TensorView& dload,
                    const TensorView& dscores) {
  with_wide(logits.dtype, [&]<class A>() { noisy_backward_typed<A>(in, logits, rivals, dlogits, dload, dscores); });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

// Backward gating in one pass: reads the logits, whose scores it computes again, and writes their gradient: 2 T E sizeof(A) bytes, and T k (4 + 2 sizeof(A)) of choices,
// weights and gradients. Rows are independent; W lanes hold one (core/gating_row.h).
#include "core/dispatch.h"
#include "cuda/core/gating_row.h"
#include "cuda/core/pieces.h"

namespace libmoe::cuda {

void gating_backward(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients, const TensorView& dlogits);

namespace {

constexpr int kArrays = 3;  // logits, exponentials, the result
// Whether exponentials stay in registers; very long rows have none to spare and compute them again.
template <int N> constexpr bool kKept = N <= 16;

template <class A> struct GateBackward {
  const A* logits;
  const bool* mask;
  TokenPieces pieces;
  int n, k;
  bool sigmoid_score = false, softmax_of_k = false, renormalise = false;
  Probability probability = Probability::softmax;
  A epsilon = 0;
  const int32_t* experts = nullptr;
  const A *weights = nullptr, *d_weights = nullptr, *d_lse = nullptr, *d_sums = nullptr, *d_probabilities = nullptr, *d_entropy = nullptr;
  A *dlogits = nullptr, *memory = nullptr;
};

template <class A, int W, int N>
__device__ void row_backward(const GateBackward<A>& g, int64_t t, int64_t sequence, bool exists, LaneArray<A, W, N>& x, LaneArray<A, W, N>& p, LaneArray<A, W, N>& d) {
  const int lane = lane_of_row<W>(), n = g.n, k = g.k;
  const bool active = exists && (!g.mask || g.mask[t]);
  const A* row = g.logits + t * n;
  A largest = -INFINITY, sum = 0;
  each_expert<W, N>(n, [&](int i, int e) {
    const A v = active ? row[e] : A(0);
    x[i] = v;
    d[i] = 0;
    largest = max(largest, v);
  });
#pragma unroll
  for (int bits = W / 2; bits > 0; bits >>= 1) largest = max(largest, __shfl_xor_sync(kFullWarp, largest, bits));
  each_expert<W, N>(n, [&](int i, int) {
    const A v = exp(x[i] - largest);
    sum += v;
    if constexpr (kKept<N>) p[i] = v;
  });
  sum = row_sum<W>(sum);
  const A scale = A(1) / sum, lse = largest + log(sum);
  const auto probability = [&](int i) { return (kKept<N> ? p[i] : exp(x[i] - largest)) * scale; };

  if (g.d_sums || g.d_probabilities) {
    const bool plain = g.probability == Probability::softmax, normalised = g.probability == Probability::normalised_sigmoid;
    const auto of_probability = [&](int e) {  // from the sums and the dense probabilities
      return active ? (g.d_sums ? g.d_sums[sequence * n + e] : A(0)) + (g.d_probabilities ? g.d_probabilities[t * n + e] : A(0)) : A(0);
    };
    A dot = 0, all = 0;
    each_expert<W, N>(n, [&](int i, int e) {
      const A c = of_probability(e), s = plain ? probability(i) : sigmoid(x[i]);
      d[i] = s;
      all += s;
      dot += s * c;
    });
    dot = row_sum<W>(dot);
    all = row_sum<W>(all);
    const A mean = plain ? dot : normalised ? dot / all : A(0), share = normalised ? A(1) / all : A(1);
    each_expert<W, N>(n, [&](int i, int e) { d[i] *= (of_probability(e) - mean) * (plain ? A(1) : share * (A(1) - d[i])); });
  }

  if (g.d_weights) {
    const auto chosen = [&](int j) {
      const int c = active && j < k ? g.experts[t * k + j] : -1;
      return c < n ? c : -1;
    };
    const auto score = [&](int c) { return g.sigmoid_score ? sigmoid(row[c]) : exp(row[c] - largest) * scale; };
    A mean = 0, total = 0;
#pragma unroll 1
    for (int j = lane; j - lane < k; j += W)
      if (const int c = chosen(j); c >= 0) {
        mean += g.weights[t * k + j] * g.d_weights[t * k + j];
        if (g.renormalise) total += score(c);
      }
    mean = row_sum<W>(mean);
    total = row_sum<W>(total);
    // The gradient of a choice's score, and what it adds to its own logit.
    const auto gradient = [&](int j, int c, A s) {
      const A own = g.d_weights[t * k + j];
      if (g.softmax_of_k) return g.weights[t * k + j] * (own - mean);
      const A of_score = g.renormalise ? (total > A(0) ? (own - mean) / (total + g.epsilon) : A(0)) : own;
      return of_score * (g.sigmoid_score ? s * (A(1) - s) : s);
    };
    A shared = 0;  // softmax: every logit loses its probability times this
#pragma unroll 1
    for (int base = 0; base < k; base += W) {
      const int own = chosen(base + lane);
      const A add = own >= 0 ? gradient(base + lane, own, g.softmax_of_k ? A(0) : score(own)) : A(0);
      shared += add;
#pragma unroll 1
      for (int j = 0; j < W && base + j < k; ++j) {
        const int c = __shfl_sync(kFullWarp, own, j, W);
        const A v = __shfl_sync(kFullWarp, add, j, W);
        if constexpr (N > 0) {
          each_expert<W, N>(n, [&](int i, int e) { d[i] += e == c ? v : A(0); });
        } else {
          if (c >= 0 && (c & (W - 1)) == lane) d[c / W] += v;
        }
      }
    }
    shared = row_sum<W>(shared);
    if (!g.sigmoid_score && !g.softmax_of_k) each_expert<W, N>(n, [&](int i, int) { d[i] -= probability(i) * shared; });
  }
  if (g.d_lse) {
    const A c = active ? g.d_lse[t] : A(0);
    each_expert<W, N>(n, [&](int i, int) { d[i] = fma(c, probability(i), d[i]); });
  }
  if (g.d_entropy) {
    A entropy = 0;
    each_expert<W, N>(n, [&](int i, int) {
      const A q = probability(i);
      if (q > A(0)) entropy -= q * (x[i] - lse);
    });
    const A shift = row_sum<W>(entropy) - lse, c = active ? g.d_entropy[t] : A(0);
    each_expert<W, N>(n, [&](int i, int) {
      const A q = probability(i);
      if (q > A(0)) d[i] -= c * (q * (x[i] + shift));
    });
  }
  if (!exists) return;
  each_expert<W, N>(n, [&](int i, int e) { g.dlogits[t * n + e] = active ? d[i] : A(0); });
}

template <class A, int W, int N> __global__ void __launch_bounds__(kRowThreads, 1) backward_kernel(GateBackward<A> g) {
  using Memory = RowMemory<A, W, N>;
  LaneArray<A, W, N> x = Memory::template array<A>(g.memory, g.n, kArrays, 0), p = Memory::template array<A>(g.memory, g.n, kArrays, 1),
                     d = Memory::template array<A>(g.memory, g.n, kArrays, 2);
  for (int64_t number = blockIdx.x; number < g.pieces.bound(); number += gridDim.x) {
    const TokenPiece piece = g.pieces[number];
    for (int64_t base = piece.begin; base < piece.end; base += kRowThreads / W) {
      const int64_t t = base + row_of_block<W>();
      if (base + int(threadIdx.x >> 5) * (32 / W) >= piece.end) break;  // none of the warp's rows
      row_backward<A, W, N>(g, t, piece.sequence, t < piece.end, x, p, d);
    }
  }
}

}  // namespace

void gating_backward(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients, const TensorView& dlogits) {
  const DeviceState& state = state_of(dlogits.device);
  const int64_t tokens = in.logits.shape[0], n = in.logits.shape[1];
  with_wide(dlogits.dtype, [&]<class A>() {
    GateBackward<A> g{in.logits.as<A>(), in.mask.as<bool>(), TokenPieces(in.sequence_offsets, tokens), int(n), int(experts.shape[1])};
    g.sigmoid_score = o.score == Score::sigmoid;
    g.softmax_of_k = !g.sigmoid_score && (o.rule == WeightRule::activation || (o.rule == WeightRule::renormalise && o.epsilon == 0));
    g.renormalise = o.rule == WeightRule::renormalise;
    g.probability = o.probability;
    g.epsilon = A(o.epsilon);
    g.experts = experts.as<int32_t>();
    g.weights = weights.as<A>();
    g.d_weights = gradients.weights.as<A>();
    g.d_lse = gradients.lse.as<A>();
    g.d_sums = gradients.sums.as<A>();
    g.d_probabilities = gradients.probabilities.as<A>();
    g.d_entropy = gradients.entropy.as<A>();
    g.dlogits = dlogits.as<A>();
    with_row<A>(n, [&]<int W, int N>() {
      const unsigned blocks = grid_for(state, g.pieces.bound(), 1, N > 0 ? 16 : 2);
      const Scratch memory(state, RowMemory<A, W, N>::bytes(blocks, n, kArrays));
      g.memory = memory.as<A>();
      launch(state, backward_kernel<A, W, N>, blocks, kRowThreads, 0, g);
    });
  });
}

}  // namespace libmoe::cuda

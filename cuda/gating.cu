// Gating in one pass over the logits. Floor: T E sizeof(A) bytes read, T k (4 + sizeof(A)) written and, per 64 tokens, E (8 + sizeof(A)) bytes of partial sums; about
// 40 operations per logit. A block works on a piece of 64 tokens of one sequence, W lanes on a row that stays in their registers (core/gating_row.h); probability sums stay
// there too until the piece ends. A second kernel adds the pieces of every sequence in a fixed order.
#include "ops/gating.h"

#include "core/dispatch.h"
#include "cuda/core/gating_row.h"
#include "cuda/core/pieces.h"

namespace libmoe::cuda {

// gating_backward.cu, gating_noisy.cu and gating_lists.cu
void gating_backward(const GatingInputs& in, const GatingOptions& o, const TensorView& experts, const TensorView& weights, const GatingGradients& gradients, const TensorView& dlogits);
void noisy(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals);
void noisy_backward(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits, const TensorView& dload, const TensorView& dscores);
void expert_lists(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most);
void take(const TensorView& values, const TensorView& experts, const TensorView& out);
void take_backward(const TensorView& experts, const TensorView& dout, const TensorView& dvalues);

namespace {

constexpr int kArrays = 4;  // logits, exponentials, keys, sums
// Whether exponentials stay in registers; very long rows have none to spare and compute them again.
template <int N> constexpr bool kKept = N <= 16;
// Where the sums of a row's lanes are: N registers, or with 0 the shared or global memory that the block adds up in the end.
template <int W, int N> constexpr int kSums = W == 32 && N > 8 ? 0 : N;

template <class A> struct Gate {
  const A *logits, *bias;
  const bool* mask;
  TokenPieces pieces;
  int n, k;
  bool sigmoid_score = false, softmax_of_k = false, renormalise = false, given = false;
  Probability probability = Probability::softmax;
  A epsilon = 0;
  int groups = 1, kept_groups = 1, group_top = 1, group_size = 1;
  int32_t* experts = nullptr;
  A *weights = nullptr, *lse = nullptr, *probabilities = nullptr, *entropy = nullptr;
  A *partial = nullptr, *memory = nullptr;  // [pieces, n + kGatingSummary]
  bool narrow = false;                      // shared memory does not hold what grows with n: counts grow where they end, worth is in memory
  SortKey<A>* worth = nullptr;              // [blocks, rows, groups], narrow
  int32_t* partial_counts = nullptr;        // [pieces, 2 n]
  FaultSlot bad_row{}, bad_bias{}, bad_expert{}, bad_offsets{};
};

// Keys of the groups' worth that a block has.
template <int W> constexpr int64_t worth_of_block(int64_t groups) { return groups > 1 ? kRowThreads / W * groups : 0; }

// Shared memory of a block: summaries [warps, kGatingSummary], sums [warps, n] (N > 0), worth of the groups [rows, groups], counts and first counts [2 n]. Without what
// grows with n beyond every limit (narrow): the summaries alone; rows of that length have N = 0.
template <class A, int W, int N> size_t shared_bytes(int64_t n, int64_t groups, bool narrow) {
  const size_t summaries = sizeof(A) * size_t(kRowWarps * kGatingSummary);
  return summaries + (narrow ? 0 : sizeof(A) * size_t(N > 0 ? kRowWarps * n : 0) + sizeof(SortKey<A>) * size_t(worth_of_block<W>(groups)) + 4 * size_t(2 * n));
}

// Takes every expert outside the best groups out of the candidates. worth: memory for the groups of this row.
template <class A, int W, int N> __device__ void limit_groups(const Gate<A>& g, Picker<A, W, N>& picker, SortKey<A>* worth) {
  using Key = SortKey<A>;
  const int top = min(g.group_top, g.group_size), lane = lane_of_row<W>();
  __syncwarp();
#pragma unroll 1
  for (int group = 0; group < g.groups; ++group) {
    const int first = group * g.group_size, end = first + g.group_size;
    A sum = 0;
    bool any = false;
    // The best of the group are found among what is left; what they were is put back when its worth is known.
    Key last = ~Key(0);
    int last_expert = -1;
#pragma unroll 1
    for (int j = 0; j < top; ++j) {
      picker.best = 0;
      picker.at = -1;
      each_expert<W, N>(g.n, [&](int i, int e) {
        const Key key = picker.keys[i];
        if (e < first || e >= end || key > last || (key == last && e <= last_expert)) return;
        if (key > picker.best) {
          picker.best = key;
          picker.at = e;
        }
      });
      const int winner = picker.top(last);
      last_expert = winner;
      if (winner < 0) {  // the row has no more: nothing lies below key 0
        last = 0;
        continue;
      }
      any = true;
      sum += from_sort_key<A>(last);
    }
    if (lane == group % W) worth[group] = any ? sort_key(sum) : Key(0);
  }
  __syncwarp();
#pragma unroll 1
  for (int kept = 0; kept < g.kept_groups; ++kept) {
    Key best = 0;
    int at = -1;
#pragma unroll 1
    for (int group = lane; group < g.groups; group += W)
      if (const Key key = worth[group]; key > best && key != ~Key(0)) {
        best = key;
        at = group;
      }
    picker.best = best;
    picker.at = at;
    Key key;
    const int winner = picker.top(key);
    if (at == winner && winner >= 0) worth[winner] = ~Key(0);  // kept
    __syncwarp();
  }
  each_expert<W, N>(g.n, [&](int i, int e) {
    if (worth[e / g.group_size] != ~Key(0)) picker.keys[i] = 0;
  });
}

// The largest and the next key of a row.
template <int W, class Key> __device__ inline void two_largest(Key first, Key second, Key& largest, Key& next) {
  largest = row_max<W>(first);
  const unsigned holders = row_ballot<W>(first == largest);
  next = row_max<W>(lane_of_row<W>() == __ffs(int(holders)) - 1 ? second : first);
}

// One row: choices, weights and what belongs to the token alone is written; sums, counts and summary grow.
template <class A, int W, int N>
__device__ void gate_row(const Gate<A>& g, const A* row, int64_t t, bool exists, LaneArray<A, W, N>& x, LaneArray<A, W, N>& p, Picker<A, W, N>& picker,
                         LaneArray<A, W, kSums<W, N>>& sums, SortKey<A>* worth, int32_t* counts, A (&summary)[kGatingSummary]) {
  using Key = SortKey<A>;
  const int lane = lane_of_row<W>(), n = g.n, k = g.k;
  bool active = exists && (!g.mask || g.mask[t]);

  bool good = true;
  Key first = 0, second = 0;
  each_expert<W, N>(n, [&](int i, int e) {
    const A v = active ? row[e] : A(0);
    x[i] = v;
    good = good && v < A(INFINITY);
    const Key key = sort_key(v);
    second = max(second, min(first, key));
    first = max(first, key);
  });
  Key top, next;
  two_largest<W>(first, second, top, next);
  const A largest = from_sort_key<A>(top);
  const bool all_good = row_ballot<W>(!good) == 0 && largest != A(-INFINITY);
  if (active && !all_good && lane == 0) g.bad_row.report(t);
  active = active && all_good;

  A sum = 0;
  each_expert<W, N>(n, [&](int i, int) {
    const A v = exp(x[i] - largest);
    sum += v;
    if constexpr (kKept<N>) p[i] = v;
  });
  sum = row_sum<W>(sum);
  const A scale = A(1) / sum, lse = largest + log(sum);
  const auto probability = [&](int i) { return (kKept<N> ? p[i] : exp(x[i] - largest)) * scale; };
  A entropy = 0;
  each_expert<W, N>(n, [&](int i, int) {
    const A q = probability(i);
    if (q > A(0)) entropy -= q * (x[i] - lse);
  });
  entropy = row_sum<W>(entropy);

  int own = -1;  // choice number `lane` of this row
  if (g.given) {
    if (exists && lane < k) own = g.experts[t * k + lane];
  } else {
    const bool by_logit = !g.bias && g.groups == 1;  // saturated scores would tie
    each_expert<W, N>(n, [&](int i, int e) {
      const A v = x[i];
      const A value = by_logit || v == A(-INFINITY) ? v : (g.sigmoid_score ? sigmoid(v) : probability(i)) + (g.bias ? g.bias[e] : A(0));
      picker.keys[i] = !active || value == A(-INFINITY) ? Key(0) : sort_key(value);
    });
    if (g.groups > 1) limit_groups(g, picker, worth);
    picker.scan(n, -1, 0, n);
#pragma unroll 1
    for (int j = 0; j < k; ++j) {
      const int winner = picker.next(n);
      if (lane != (j & (W - 1))) continue;
      if (k <= W) own = winner;
      else if (exists) g.experts[t * k + j] = winner;
    }
    if (k <= W && exists && lane < k) g.experts[t * k + lane] = own;
  }

  // Weights. Lane l has choices l, l + W, ...; the first stays in a register.
  const auto chosen = [&](int j) {
    const int c = !active || j >= k ? -1 : k <= W ? own : g.experts[t * k + j];
    return c < 0 || c >= n ? -1 : c;
  };
  A best_logit = -INFINITY;
#pragma unroll 1
  for (int j = lane; j - lane < k; j += W) {
    if (const int c = chosen(j); c >= 0) best_logit = max(best_logit, row[c]);
    if (g.given && exists && j < k) {
      const int32_t c = g.experts[t * k + j];
      if (c < -1 || c >= n) g.bad_expert.report(t);
    }
  }
  if (g.softmax_of_k)
#pragma unroll
    for (int bits = W / 2; bits > 0; bits >>= 1) best_logit = max(best_logit, __shfl_xor_sync(kFullWarp, best_logit, bits));
  const auto raw = [&](int c) {
    if (c < 0) return A(0);
    const A v = row[c];
    if (g.softmax_of_k) return exp(v - best_logit);
    return g.sigmoid_score ? sigmoid(v) : exp(v - largest) * scale;
  };
  A total_raw = 0, first_raw = 0;
  int have = 0;
#pragma unroll 1
  for (int j = lane; j - lane < k; j += W) {
    const int c = chosen(j);
    const A v = raw(c);
    if (j == lane) first_raw = v;
    else if (j < k && exists) g.weights[t * k + j] = v;
    total_raw += v;
    have += c >= 0;
  }
  total_raw = row_sum<W>(total_raw);
  have = row_sum<W>(have);
  A total = 0, heaviest = 0, second_weight = 0, first_weight = 0;
#pragma unroll 1
  for (int j = lane; j - lane < k; j += W) {
    const int c = chosen(j);
    A w = j == lane ? first_raw : j < k && exists ? g.weights[t * k + j] : A(0);
    if (c >= 0 && (g.softmax_of_k || g.renormalise)) w = total_raw > A(0) ? w / (total_raw + (g.softmax_of_k ? A(0) : g.epsilon)) : A(1) / A(have);
    if (j < k && exists) g.weights[t * k + j] = w;
    if (j == lane) first_weight = w;
    total += w;
    second_weight = max(second_weight, min(heaviest, w));
    heaviest = max(heaviest, w);
    if (c >= 0) {
      atomicAdd(&counts[c], 1);
      if (j == 0) atomicAdd(&counts[n + c], 1);
    }
  }
  total = row_sum<W>(total);
  A weight_entropy = 0;
#pragma unroll 1
  for (int j = lane; j - lane < k; j += W) {
    const A w = j == lane ? first_weight : j < k && exists ? g.weights[t * k + j] : A(0), q = w / total;
    if (w > A(0)) weight_entropy -= q * log(q);
  }
  weight_entropy = row_sum<W>(weight_entropy);
#pragma unroll
  for (int bits = W / 2; bits > 0; bits >>= 1) {
    const A other = __shfl_xor_sync(kFullWarp, heaviest, bits), after = __shfl_xor_sync(kFullWarp, second_weight, bits);
    second_weight = max(max(second_weight, after), min(heaviest, other));
    heaviest = max(heaviest, other);
  }
  if (active) {
    summary[0] += A(1);
    summary[1] += entropy;
    summary[2] += weight_entropy;
    summary[3] += total > A(0) ? (heaviest - second_weight) / total : A(0);
    summary[4] += scale - (next == 0 ? A(0) : exp(from_sort_key<A>(next) - largest) * scale);
  }

  A share = 1;
  if (g.probability != Probability::softmax) {
    A all = 0;
    each_expert<W, N>(n, [&](int i, int) { all += sigmoid(x[i]); });
    all = row_sum<W>(all);
    if (g.probability == Probability::normalised_sigmoid) share = A(1) / all;
  }
  each_expert<W, N>(n, [&](int i, int e) {
    const A q = !active ? A(0) : g.probability == Probability::softmax ? probability(i) : sigmoid(x[i]) * share;
    sums[i] += q;
    if (g.probabilities && exists) g.probabilities[t * n + e] = q;
  });
  if (lane == 0 && exists) {
    g.lse[t] = active ? lse : A(0);
    if (g.entropy) g.entropy[t] = active ? entropy : A(0);
  }
}

template <class A, int W, int N> __global__ void __launch_bounds__(kRowThreads, N <= 9 ? 2 : 1) forward_kernel(Gate<A> g) {
  constexpr int kRows = kRowThreads / W;
  const int n = g.n, lane = lane_of_row<W>(), warp = int(threadIdx.x >> 5), row_of = row_of_block<W>();
  A *summaries = dynamic_shared<A>(), *warp_sums = summaries + kRowWarps * kGatingSummary;
  auto* worth = reinterpret_cast<SortKey<A>*>(warp_sums + (N > 0 ? kRowWarps * n : 0));
  int32_t* counts = reinterpret_cast<int32_t*>(worth + worth_of_block<W>(g.groups));
  if (g.narrow) worth = g.worth + blockIdx.x * worth_of_block<W>(g.groups);
  LaneArray<A, W, N> x = RowMemory<A, W, N>::template array<A>(g.memory, n, kArrays, 0), p = RowMemory<A, W, N>::template array<A>(g.memory, n, kArrays, 1);
  Picker<A, W, N> picker;
  picker.keys = RowMemory<A, W, N>::template array<SortKey<A>>(g.memory, n, kArrays, 2);

  LaneArray<A, W, kSums<W, N>> sums{};
  if constexpr (N == 0) sums = RowMemory<A, W, N>::template array<A>(g.memory, n, kArrays, 3);
  else if constexpr (kSums<W, N> == 0) sums.own = warp_sums + warp * n + lane;

  if (blockIdx.x == 0) {
    g.pieces.check(g.bad_offsets);
    if (g.bias && !g.given)
      for (int e = int(threadIdx.x); e < n; e += kRowThreads)
        if (!(g.bias[e] < A(INFINITY))) g.bad_bias.report(e);
  }
  for (int64_t number = blockIdx.x; number < g.pieces.bound(); number += gridDim.x) {
    const TokenPiece piece = g.pieces[number];
    if (piece.begin >= piece.end) continue;
    int32_t* const piece_counts = g.partial_counts + number * 2 * n;
    if (g.narrow) counts = piece_counts;
    __syncthreads();
    for (int i = int(threadIdx.x); i < 2 * n; i += kRowThreads) counts[i] = 0;
    __syncthreads();
    each_expert<W, N>(n, [&](int i, int) { sums[i] = 0; });
    A summary[kGatingSummary] = {};
    for (int64_t base = piece.begin; base < piece.end; base += kRows) {
      const int64_t t = base + row_of;
      if (base + warp * (32 / W) >= piece.end) break;  // none of the warp's rows
      gate_row<A, W, N>(g, g.logits + t * n, t, t < piece.end, x, p, picker, sums, worth + row_of * g.groups, counts, summary);
    }
    // The rows of a warp, then the warps, in order.
    if constexpr (kSums<W, N> > 0) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const A all = sum_of_rows<W>(i * W + lane < n ? sums[i] : A(0));
        if ((threadIdx.x & 31u) < W && i * W + lane < n) warp_sums[warp * n + i * W + lane] = all;
      }
    }
#pragma unroll
    for (int i = 0; i < kGatingSummary; ++i) {
      const A all = sum_of_rows<W>(summary[i]);
      if ((threadIdx.x & 31u) == 0) summaries[warp * kGatingSummary + i] = all;
    }
    __syncthreads();
    const auto total = [&](const A* from, int64_t stride) {
      A all = from[0];
      for (int w = 1; w < kRowWarps; ++w) all += from[w * stride];
      return all;
    };
    A* to = g.partial + number * (n + kGatingSummary);
    for (int e = int(threadIdx.x); e < n; e += kRowThreads) {
      if constexpr (N > 0) {
        to[e] = total(warp_sums + e, n);
      } else {
        const int64_t size = RowMemory<A, W, N>::padded(n);
        to[e] = total(g.memory + (int64_t(blockIdx.x) * kRows * kArrays + 3) * size + e, kArrays * size);
      }
    }
    if (threadIdx.x < kGatingSummary) to[n + threadIdx.x] = total(summaries + threadIdx.x, kGatingSummary);
    if (!g.narrow)
      for (int i = int(threadIdx.x); i < 2 * n; i += kRowThreads) piece_counts[i] = counts[i];
  }
}

// Adds the pieces of every sequence: grid (columns / 32, sequences); columns are those of `partial`.
template <class A>
__global__ void __launch_bounds__(kPartialThreads) statistics_kernel(TokenPieces pieces, int n, const A* partial, const int32_t* partial_counts, A* sums, A* summary, int32_t* counts,
                                                                     int32_t* first_counts) {
  const int64_t width = n + kGatingSummary, column = int64_t(blockIdx.x) * 32 + (threadIdx.x & 31u);
  for (int64_t s = blockIdx.y; s < pieces.sequences; s += gridDim.y) {
    const int64_t first = pieces.first_of(s), count = pieces.count_of(s);
    const A total = sum_partials<A>(count, [&](int64_t p) { return column < width ? partial[(first + p) * width + column] : A(0); });
    const int32_t all = sum_partials<int32_t>(count, [&](int64_t p) { return column < n ? partial_counts[(first + p) * 2 * n + column] : 0; });
    const int32_t firsts = sum_partials<int32_t>(count, [&](int64_t p) { return column < n ? partial_counts[(first + p) * 2 * n + n + column] : 0; });
    if (threadIdx.x >= 32 || column >= width) continue;
    if (column < n) {
      sums[s * n + column] = total;
      counts[s * n + column] = all;
      first_counts[s * n + column] = firsts;
    } else {
      summary[s * kGatingSummary + column - n] = total;
    }
  }
}

template <class A> void forward_typed(const GatingInputs& in, const GatingOptions& o, const GatingOutputs& out) {
  DeviceState& state = state_of(in.logits.device);
  const int64_t tokens = in.logits.shape[0], n = in.logits.shape[1], k = out.experts.shape[1];
  const TokenPieces pieces(in.sequence_offsets, tokens);
  const int64_t bound = pieces.bound();
  const Scratch partial(state, size_t(bound) * size_t(n + kGatingSummary) * sizeof(A)), counts(state, size_t(bound) * size_t(2 * n) * 4);
  Gate<A> g{in.logits.as<A>(), in.bias.as<A>(), in.mask.as<bool>(), pieces, int(n), int(k)};
  g.sigmoid_score = o.score == Score::sigmoid;
  g.softmax_of_k = !g.sigmoid_score && (o.rule == WeightRule::activation || (o.rule == WeightRule::renormalise && o.epsilon == 0));
  g.renormalise = o.rule == WeightRule::renormalise;
  g.given = o.given;
  g.probability = o.probability;
  g.epsilon = A(o.epsilon);
  g.groups = int(o.groups);
  g.kept_groups = int(o.kept_groups);
  g.group_top = int(o.group_top);
  g.group_size = int(n / o.groups);
  g.experts = out.experts.as<int32_t>();
  g.weights = out.weights.as<A>();
  g.lse = out.lse.as<A>();
  g.probabilities = out.probabilities.as<A>();
  g.entropy = out.entropy.as<A>();
  g.partial = partial.as<A>();
  g.partial_counts = counts.as<int32_t>();
  if (o.given) g.bad_expert = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "given experts", -1, n - 1, "token"});
  if (pieces.offsets) g.bad_offsets = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "sequence offsets, ascending,", 0, tokens});
  if (g.bias) g.bad_bias = fault_slot(state, {"ERR_LIBMOE_NOT_FINITE", "the selection bias", 1, 0, "expert"});
  g.bad_row = fault_slot(state, {"ERR_LIBMOE_NOT_FINITE", "a row of logits", 1, 0, "token"});
  with_row<A>(n, [&]<int W, int N>() {
    const unsigned blocks = grid_for(state, bound, 1, N > 0 ? 16 : 2);
    const Scratch memory(state, RowMemory<A, W, N>::bytes(blocks, n, kArrays));
    g.memory = memory.as<A>();
    g.narrow = shared_bytes<A, W, N>(n, o.groups, false) > state.shared_bytes;
    const Scratch worth(state, g.narrow ? blocks * size_t(worth_of_block<W>(o.groups)) * sizeof(SortKey<A>) : 0);
    g.worth = worth.as<SortKey<A>>();
    launch(state, forward_kernel<A, W, N>, blocks, kRowThreads, shared_bytes<A, W, N>(n, o.groups, g.narrow), g);
  });
  launch(state, statistics_kernel<A>, dim3(unsigned(blocks_for(n + kGatingSummary, 32)), unsigned(std::min<int64_t>(pieces.sequences, 65535))), kPartialThreads, 0, pieces, int(n),
         static_cast<const A*>(partial.as<A>()), static_cast<const int32_t*>(counts.as<int32_t>()), out.sums.as<A>(), out.summary.as<A>(), out.counts.as<int32_t>(),
         out.first_counts.as<int32_t>());
}

void forward(const GatingInputs& in, const GatingOptions& o, const GatingOutputs& out) {
  with_wide(in.logits.dtype, [&]<class A>() { forward_typed<A>(in, o, out); });
}

}  // namespace

extern const GatingOps gating_ops;
const GatingOps gating_ops = {forward, gating_backward, noisy, noisy_backward, expert_lists, take, take_backward};

}  // namespace libmoe::cuda

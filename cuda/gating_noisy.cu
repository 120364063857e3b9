// Noisy logits and the smooth estimate of every expert's load: 3 T E sizeof(A) bytes read and T E written forward, about 60 operations per token and expert, most of them
// softplus and erf; backward reads 4 T E and writes 2 T E. W lanes hold a row (core/gating_row.h); loads are summed over pieces of 64 tokens, those in order.
#include "core/dispatch.h"
#include "cuda/core/activation.h"
#include "cuda/core/gating_row.h"
#include "cuda/core/pieces.h"
#include "cuda/core/row_sums.h"

namespace libmoe::cuda {

void noisy(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals);
void noisy_backward(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits, const TensorView& dload, const TensorView& dscores);

namespace {

constexpr int kArrays = 3;  // logits, keys, sums

// Never 0, so that quotients by it, and their products with a vanishing density, stay numbers.
template <class A> __device__ inline A deviation(A raw, A floor) { return max(apply<Unary::softplus>(raw) + floor, sizeof(A) == 4 ? A(1e-12) : A(1e-100)); }

template <class A> struct Noisy {
  const A *scores, *noise;
  const bool* mask;
  int64_t tokens;
  int n, k;
  A floor;
};

template <class A, int W, int N>
__global__ void __launch_bounds__(kRowThreads, 1) noisy_kernel(Noisy<A> g, A* logits, int32_t* rivals, A* partial, A* memory) {
  using Memory = RowMemory<A, W, N>;
  constexpr int kRows = kRowThreads / W;
  const int n = g.n, lane = lane_of_row<W>(), warp = int(threadIdx.x >> 5);
  LaneArray<A, W, N> out = Memory::template array<A>(memory, n, kArrays, 0), sums = Memory::template array<A>(memory, n, kArrays, 2);
  Picker<A, W, N> picker;
  picker.keys = Memory::template array<SortKey<A>>(memory, n, kArrays, 1);
  A* warp_sums = dynamic_shared<A>();  // [warps, n], N > 0
  const int64_t pieces = (g.tokens + kTokenPiece - 1) / kTokenPiece;
  for (int64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    const int64_t end = min(g.tokens, (piece + 1) * kTokenPiece);
    each_expert<W, N>(n, [&](int i, int) { sums[i] = 0; });
    for (int64_t base = piece * kTokenPiece; base < end; base += kRows) {
      const int64_t t = base + row_of_block<W>();
      if (base + warp * (32 / W) >= end) break;  // none of the warp's rows
      const bool exists = t < end, counted = exists && g.k > 0 && (!g.mask || g.mask[t]);
      const A *clean = g.scores + t * 2 * n, *raw = clean + n, *noise = g.noise + t * n;
      each_expert<W, N>(n, [&](int i, int e) {
        const A v = exists ? fma(noise[e], deviation(raw[e], g.floor), clean[e]) : A(0);
        out[i] = v;
        picker.keys[i] = counted && v == v ? sort_key(v) : SortKey<A>(0);  // NaN is no rival
        if (exists) logits[t * n + e] = v;
      });
      int kth_expert = -1, next_expert = -1;
      A kth = 0, next = 0;
      picker.scan(n, -1, 0, n);
#pragma unroll 1
      for (int j = 0; j <= g.k && g.k > 0; ++j) {
        SortKey<A> key;
        const int winner = picker.top(key);
        kth_expert = next_expert;
        kth = next;
        next_expert = winner;
        next = from_sort_key<A>(key);
        if (picker.at == winner && winner >= 0) picker.scan(n, winner, 0, n);
      }
      if (next_expert < 0) kth_expert = -1;
      if (exists && lane < 2) rivals[t * 2 + lane] = lane ? next_expert : kth_expert;
      if (kth_expert < 0) continue;
      each_expert<W, N>(n, [&](int i, int e) {
        const A threshold = out[i] > next ? next : kth, z = (clean[e] - threshold) / deviation(raw[e], g.floor);
        sums[i] += fma(A(0.5), erf(z * A(0.70710678118654752440)), A(0.5));
      });
    }
    if constexpr (N > 0) {
      __syncthreads();
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const A all = sum_of_rows<W>(i * W + lane < n ? sums[i] : A(0));
        if ((threadIdx.x & 31u) < W && i * W + lane < n) warp_sums[warp * n + i * W + lane] = all;
      }
    }
    __syncthreads();
    const int64_t stride = N > 0 ? n : Memory::padded(n) * kArrays;
    const A* first = N > 0 ? warp_sums : memory + (int64_t(blockIdx.x) * kRows * kArrays + 2) * Memory::padded(n);
    for (int e = int(threadIdx.x); e < n; e += kRowThreads) {
      A all = first[e];
      for (int w = 1; w < kRowWarps; ++w) all += first[w * stride + e];
      partial[piece * n + e] = all;
    }
    if constexpr (N == 0) __syncthreads();
  }
}

template <class A, int W, int N>
__global__ void __launch_bounds__(kRowThreads) noisy_backward_kernel(Noisy<A> g, const A* logits, const int32_t* rivals, const A* dlogits, const A* dload, A* dscores) {
  constexpr int kRows = kRowThreads / W;
  const int n = g.n;
  for (int64_t base = int64_t(blockIdx.x) * kRows; base < g.tokens; base += int64_t(gridDim.x) * kRows) {
    const int64_t t = base + row_of_block<W>();
    const bool exists = t < g.tokens;
    if (base + int(threadIdx.x >> 5) * (32 / W) >= g.tokens) break;  // none of the warp's rows
    const A *clean = g.scores + t * 2 * n, *raw = clean + n, *noise = g.noise + t * n, *out = logits + t * n;
    const int kth_expert = exists ? rivals[t * 2] : -1, next_expert = exists ? rivals[t * 2 + 1] : -1;
    const bool loaded = dload && kth_expert >= 0 && next_expert >= 0;
    const A kth = loaded ? out[kth_expert] : A(0), next = loaded ? out[next_expert] : A(0);
    // Slope of the probability in the clean logit; the threshold has the negative of it, the deviation that times -z.
    const auto slope = [&](int e, A d, A& z) {
      z = (clean[e] - (out[e] > next ? next : kth)) / d;
      return dload[e] * A(0.39894228040143267794) * exp(A(-0.5) * z * z) / d;
    };
    A above = 0, below = 0;
    if (loaded)
      each_expert<W, N>(n, [&](int, int e) {
        A z;
        const A s = slope(e, deviation(raw[e], g.floor), z);
        if (out[e] > next) above += s;
        else below += s;
      });
    above = row_sum<W>(above);
    below = row_sum<W>(below);
    if (!exists) continue;
    each_expert<W, N>(n, [&](int, int e) {
      A total = dlogits ? dlogits[t * n + e] : A(0), own = 0, of_deviation = 0;
      if (loaded) {
        A z;
        own = slope(e, deviation(raw[e], g.floor), z);
        of_deviation = -own * z;
        if (e == next_expert) total -= above;
        if (e == kth_expert) total -= below;
      }
      dscores[t * 2 * n + e] = own + total;
      dscores[t * 2 * n + n + e] = fma(total, noise[e], of_deviation) * sigmoid(raw[e]);
    });
  }
}

}  // namespace

void noisy(const NoisyInputs& in, const TensorView& logits, const TensorView& load, const TensorView& rivals) {
  const DeviceState& state = state_of(logits.device);
  const int64_t tokens = logits.shape[0], n = logits.shape[1], pieces = blocks_for(tokens, kTokenPiece);
  with_wide(logits.dtype, [&]<class A>() {
    const Noisy<A> g{in.scores.as<A>(), in.noise.as<A>(), in.mask.as<bool>(), tokens, int(n), int(in.k), A(in.floor)};
    const Scratch partial(state, size_t(pieces) * size_t(n) * sizeof(A));
    with_few_rows<A>(n, [&]<int W, int N>() {
      const unsigned blocks = grid_for(state, pieces, 1, N > 0 ? 16 : 2);
      const Scratch memory(state, RowMemory<A, W, N>::bytes(blocks, n, kArrays));
      launch(state, noisy_kernel<A, W, N>, blocks, kRowThreads, N > 0 ? kRowWarps * size_t(n) * sizeof(A) : 0, g, logits.as<A>(), rivals.as<int32_t>(), partial.as<A>(), memory.as<A>());
    });
    sum_columns<A>(state, partial.as<A>(), pieces, n, load.as<A>(), false);
  });
}

void noisy_backward(const NoisyInputs& in, const TensorView& logits, const TensorView& rivals, const TensorView& dlogits, const TensorView& dload, const TensorView& dscores) {
  const DeviceState& state = state_of(dscores.device);
  const int64_t tokens = logits.shape[0], n = logits.shape[1];
  with_wide(logits.dtype, [&]<class A>() {
    const Noisy<A> g{in.scores.as<A>(), in.noise.as<A>(), in.mask.as<bool>(), tokens, int(n), int(in.k), A(in.floor)};
    const auto run = [&]<int W>() {
      launch(state, noisy_backward_kernel<A, W, 0>, grid_for(state, tokens, kRowThreads / W, 16), kRowThreads, 0, g, static_cast<const A*>(logits.as<A>()),
             static_cast<const int32_t*>(rivals.as<int32_t>()), static_cast<const A*>(dlogits.as<A>()), static_cast<const A*>(dload.as<A>()), dscores.as<A>());
    };
    if (n <= 64) run.template operator()<8>();
    else run.template operator()<32>();
  });
}

}  // namespace libmoe::cuda

// Experts of tokens whose number of experts differs, and values looked up by expert. Lists: a row is read once and T E 4 bytes are written; where experts choose tokens
// (expert choice), each column is first copied to sorted-key form and its threshold found by radix selection, 8 bits a pass, in one block per expert.
#include "core/dispatch.h"
#include "cuda/core/gating_row.h"
#include "cuda/core/radix_select.h"

namespace libmoe::cuda {

void expert_lists(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most);
void take(const TensorView& values, const TensorView& experts, const TensorView& out);
void take_backward(const TensorView& experts, const TensorView& dout, const TensorView& dvalues);

namespace {

// What an expert takes: every token with a larger key, and those with this one up to token `last`.
template <class K> struct Threshold {
  K key;
  int64_t last;
};

// keys[e, t] from scores[t, e], 0 where masked; tiles of 32 x 32 go through shared memory so that both sides are read and written in rows.
template <class A>
__global__ void __launch_bounds__(256) column_keys_kernel(const A* scores, const bool* mask, int64_t tokens, int64_t n, SortKey<A>* keys) {
  __shared__ SortKey<A> tile[32][33];
  const int x = int(threadIdx.x & 31u), y = int(threadIdx.x >> 5);
  for (int64_t first = int64_t(blockIdx.x) * 32; first < tokens; first += int64_t(gridDim.x) * 32) {
    const int64_t e0 = int64_t(blockIdx.y) * 32;
    __syncthreads();
    for (int r = y; r < 32; r += 8) {
      const int64_t t = first + r, e = e0 + x;
      if (t < tokens && e < n) tile[r][x] = mask && !mask[t] ? SortKey<A>(0) : sort_key(scores[t * n + e]);
    }
    __syncthreads();
    for (int r = y; r < 32; r += 8) {
      const int64_t t = first + x, e = e0 + r;
      if (t < tokens && e < n) keys[e * tokens + t] = tile[x][r];
    }
  }
}

template <class K> __global__ void __launch_bounds__(kSelectThreads) column_threshold_kernel(const K* keys, int64_t tokens, const int32_t* each, Threshold<K>* thresholds) {
  const K* column = keys + blockIdx.x * tokens;
  // Ascending order of the complement is descending order of the keys; masked tokens have key 0 and come last.
  const auto digits = [&](int64_t i) { return K(~column[i]); };
  const Selected<K> s = radix_select<K>(tokens, min(tokens, int64_t(max(1, *each))), 8 * sizeof(K), digits);
  if (threadIdx.x == 0) thresholds[blockIdx.x] = {K(~s.key), s.last};
}

__global__ void one_kernel(int32_t* x) { *x = 1; }

template <class A, int W, int N>
__global__ void __launch_bounds__(kRowThreads) lists_kernel(const A* scores, const bool* mask, int64_t tokens, int n, const Threshold<SortKey<A>>* thresholds, int32_t* experts,
                                                           int32_t* most, SortKey<A>* memory, FaultSlot bad) {
  using Key = SortKey<A>;
  constexpr int kRows = kRowThreads / W;
  Picker<A, W, N> picker;
  picker.keys = RowMemory<A, W, N>::template array<Key>(reinterpret_cast<A*>(memory), n, 1, 0);
  const int lane = lane_of_row<W>();
  int longest = 0;
  for (int64_t base = int64_t(blockIdx.x) * kRows; base < tokens; base += int64_t(gridDim.x) * kRows) {
    const int64_t t = base + row_of_block<W>();
    if (base + int(threadIdx.x >> 5) * (32 / W) >= tokens) break;  // none of the warp's rows
    const bool active = t < tokens && (!mask || mask[t]);
    bool good = true;
    each_expert<W, N>(n, [&](int i, int e) {
      const A v = active ? scores[t * n + e] : A(-1);
      good = good && v < A(INFINITY);
      const Key key = sort_key(v);
      const bool wanted = thresholds ? key > thresholds[e].key || (key == thresholds[e].key && t <= thresholds[e].last) : v > A(0);
      picker.keys[i] = active && wanted ? key : Key(0);
    });
    if (row_ballot<W>(!good) != 0 && lane == 0) bad.report(t);
    picker.scan(n, -1, 0, n);
    int have = 0, mine = -1, written = 0;
    while (written < n) {
      const int winner = picker.next(n);
      if (!__any_sync(kFullWarp, winner >= 0)) break;
      if (winner >= 0) ++have;
      if (lane == (written & (W - 1))) mine = winner;
      if ((++written & (W - 1)) == 0) {
        if (t < tokens) experts[t * n + written - W + lane] = mine;
        mine = -1;
      }
    }
    // What is left of the last few, then no expert.
    if (t < tokens)
      for (int j = (written & ~(W - 1)) + lane; j < n; j += W, mine = -1) experts[t * n + j] = mine;
    longest = max(longest, have);
  }
  if (lane == 0 && longest > 1) atomicMax(most, longest);
}

// A thread per choice: reads 4 + sizeof(A) bytes and writes sizeof(A).
template <class A> __global__ void __launch_bounds__(256) take_kernel(int64_t choices, int64_t k, int64_t n, const A* values, const int32_t* experts, A* out, FaultSlot bad) {
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < choices; i += int64_t(gridDim.x) * 256) {
    const int32_t e = experts[i];
    const bool inside = e >= -1 && e < n;
    if (!inside) bad.report(i / k);
    out[i] = inside && e >= 0 ? values[i / k * n + e] : A(0);
  }
}

// A warp per token; lane l owns the experts l, l + 32, ... and adds to them in the order of the choices.
template <class A> __global__ void __launch_bounds__(256) take_backward_kernel(int64_t tokens, int64_t k, int64_t n, const int32_t* experts, const A* dout, A* dvalues) {
  const int lane = int(threadIdx.x & 31u);
  for (int64_t t = int64_t(blockIdx.x) * 8 + (threadIdx.x >> 5); t < tokens; t += int64_t(gridDim.x) * 8) {
    for (int64_t e = lane; e < n; e += 32) dvalues[t * n + e] = A(0);
    for (int64_t j = 0; j < k; ++j) {
      const int32_t e = experts[t * k + j];
      if (e >= 0 && e < n && (e & 31) == lane) dvalues[t * n + e] += dout[t * k + j];
    }
  }
}

template <class A> void lists_typed(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most) {
  using Key = SortKey<A>;
  DeviceState& state = state_of(scores.device);
  const int64_t tokens = scores.shape[0], n = scores.shape[1];
  const FaultSlot bad = fault_slot(state, {"ERR_LIBMOE_NOT_FINITE", "a row of logits", 1, 0, "token"});
  const Scratch thresholds(state, each ? size_t(n) * sizeof(Threshold<Key>) : 0);
  launch(state, one_kernel, 1, 1, 0, most.as<int32_t>());
  if (tokens == 0) return;
  if (each) {
    const Scratch keys(state, size_t(tokens * n) * sizeof(Key));
    launch(state, column_keys_kernel<A>, dim3(grid_for(state, tokens, 32, 8), unsigned(blocks_for(n, 32))), 256, 0, static_cast<const A*>(scores.as<A>()), static_cast<const bool*>(mask.as<bool>()),
           tokens, n, keys.as<Key>());
    launch(state, column_threshold_kernel<Key>, unsigned(n), kSelectThreads, 0, static_cast<const Key*>(keys.as<Key>()), tokens, static_cast<const int32_t*>(each.as<int32_t>()),
           thresholds.as<Threshold<Key>>());
  }
  with_few_rows<A>(n, [&]<int W, int N>() {
    const unsigned blocks = grid_for(state, tokens, kRowThreads / W, N > 0 ? 16 : 2);
    const Scratch memory(state, RowMemory<A, W, N>::bytes(blocks, n, 1));
    launch(state, lists_kernel<A, W, N>, blocks, kRowThreads, 0, static_cast<const A*>(scores.as<A>()), static_cast<const bool*>(mask.as<bool>()), tokens, int(n),
           static_cast<const Threshold<Key>*>(each ? thresholds.as<Threshold<Key>>() : nullptr), experts.as<int32_t>(), most.as<int32_t>(), memory.as<Key>(), bad);
  });
}

}  // namespace

void expert_lists(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most) {
  with_wide(scores.dtype, [&]<class A>() { lists_typed<A>(scores, mask, each, experts, most); });
}

void take(const TensorView& values, const TensorView& experts, const TensorView& out) {
  DeviceState& state = state_of(values.device);
  const int64_t n = values.shape[1], k = experts.shape[1], choices = experts.elements();
  const FaultSlot bad = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "experts", -1, n - 1, "token"});
  with_wide(values.dtype, [&]<class A>() {
    launch(state, take_kernel<A>, grid_for(state, choices, 256, 8), 256, 0, choices, k, n, static_cast<const A*>(values.as<A>()), static_cast<const int32_t*>(experts.as<int32_t>()),
           out.as<A>(), bad);
  });
}

void take_backward(const TensorView& experts, const TensorView& dout, const TensorView& dvalues) {
  const DeviceState& state = state_of(dvalues.device);
  const int64_t tokens = dvalues.shape[0], n = dvalues.shape[1], k = experts.shape[1];
  with_wide(dvalues.dtype, [&]<class A>() {
    launch(state, take_backward_kernel<A>, grid_for(state, tokens, 8, 8), 256, 0, tokens, k, n, static_cast<const int32_t*>(experts.as<int32_t>()), static_cast<const A*>(dout.as<A>()),
           dvalues.as<A>());
  });
}

}  // namespace libmoe::cuda

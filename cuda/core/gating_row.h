#pragma once
// One token's row of logits on the device. W neighbouring lanes of a warp hold it, so a warp works on 32 / W rows at once: lane l of them has the experts l, l + W, ...,
// N of them in registers. N = 0 (then W = 32) keeps them in memory instead, for f64 and for rows of any length; the code is the same.
// Everything here is called by all lanes of a warp together; rows without a token take part with values that nobody reads.
#include <bit>

#include "cuda/core/activation.h"
#include "cuda/core/block.h"
#include "cuda/core/convert.h"
#include "cuda/core/fault.h"
#include "ops/gating.h"

namespace libmoe::cuda {

constexpr int kRowThreads = 256, kRowWarps = kRowThreads / 32;

template <class A, int W, int N> struct LaneArray {
  A own[N];
  __device__ A& operator[](int i) { return own[i]; }
  __device__ const A& operator[](int i) const { return own[i]; }
};
template <class A, int W> struct LaneArray<A, W, 0> {
  A* own;
  __device__ A& operator[](int i) const { return own[i * W]; }
};

template <int W> __device__ inline int lane_of_row() { return int(threadIdx.x) & (W - 1); }
template <int W> __device__ inline int row_of_block() { return int(threadIdx.x) / W; }

// f(i, expert) for every expert below n that this lane has.
template <int W, int N, class F> __device__ inline void each_expert(int n, F f) {
  const int lane = lane_of_row<W>();
  if constexpr (N > 0) {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i * W + lane < n) f(i, i * W + lane);
  } else {
#pragma unroll 1
    for (int i = 0, e = lane; e < n; ++i, e += W) f(i, e);
  }
}

// Memory for the arrays of a row whose N is 0: `arrays` of every row in work; nothing otherwise.
template <class A, int W, int N> struct RowMemory {
  static __host__ __device__ int64_t padded(int64_t n) { return (n + W - 1) / W * W; }
  static size_t bytes(unsigned blocks, int64_t n, int arrays) { return N > 0 ? 0 : size_t(blocks) * (kRowThreads / W) * size_t(arrays) * size_t(padded(n)) * sizeof(A); }
  // Array number `which` of this lane's row. T: A, or a key of A's size.
  template <class T> static __device__ LaneArray<T, W, N> array(A* memory, int n, int arrays, int which) {
    LaneArray<T, W, N> a{};
    if constexpr (N == 0) {
      const int64_t row = int64_t(blockIdx.x) * (kRowThreads / W) + row_of_block<W>();
      a.own = reinterpret_cast<T*>(memory) + (row * arrays + which) * padded(n) + lane_of_row<W>();
    }
    return a;
  }
};

// body.template operator()<W, N>() with a shape that holds n experts; 72 is for the 66 of LibMoE's models. It depends on n and the type alone, and so do the bits of a row.
template <class A, class F> inline void with_row(int64_t n, F&& body) {
  if constexpr (sizeof(A) == 4) {
    if (n <= 32) return body.template operator()<8, 4>();
    if (n <= 64) return body.template operator()<8, 8>();
    if (n <= 72) return body.template operator()<8, 9>();
    if (n <= 128) return body.template operator()<16, 8>();
    if (n <= 256) return body.template operator()<32, 8>();
    if (n <= 512) return body.template operator()<32, 16>();
    if (n <= 1024) return body.template operator()<32, 32>();
  }
  body.template operator()<32, 0>();
}

// The same for what few models need: fewer kernels to compile.
template <class A, class F> inline void with_few_rows(int64_t n, F&& body) {
  if constexpr (sizeof(A) == 4) {
    if (n <= 64) return body.template operator()<8, 8>();
    if (n <= 256) return body.template operator()<32, 8>();
  }
  body.template operator()<32, 0>();
}

template <int W, class T> __device__ inline T row_sum(T x) {
#pragma unroll
  for (int bits = W / 2; bits > 0; bits >>= 1) x += __shfl_xor_sync(kFullWarp, x, bits);
  return x;
}
// The same over the rows that a warp has in work, for every lane of a row separately.
template <int W, class T> __device__ inline T sum_of_rows(T x) {
#pragma unroll
  for (int bits = W; bits < 32; bits <<= 1) x += __shfl_xor_sync(kFullWarp, x, bits);
  return x;
}
// One bit per lane of the row.
template <int W> __device__ inline unsigned row_ballot(bool x) {
  const unsigned all = __ballot_sync(kFullWarp, x);
  if constexpr (W == 32) return all;
  else return all >> (threadIdx.x & 31u & ~unsigned(W - 1)) & ((1u << W) - 1);
}

// Numbers as unsigned integers of the same order; 0 stands for "not a candidate". -0 counts as 0, so that equal numbers have equal keys.
template <class A> using SortKey = std::conditional_t<sizeof(A) == 4, uint32_t, unsigned long long>;
template <class A> __device__ inline SortKey<A> sort_key(A x) {
  using K = SortKey<A>;
  constexpr K kSign = K(1) << (8 * sizeof(K) - 1);
  const K bits = std::bit_cast<K>(x + A(0));
  return bits & kSign ? ~bits : bits | kSign;
}
template <class A> __device__ inline A from_sort_key(SortKey<A> key) {
  using K = SortKey<A>;
  constexpr K kSign = K(1) << (8 * sizeof(K) - 1);
  return std::bit_cast<A>(K(key & kSign ? key & ~kSign : ~key));
}

template <int W, class K> __device__ inline K row_max(K key) {
  if constexpr (W == 32 && sizeof(K) == 4) {
    return __reduce_max_sync(kFullWarp, key);
  } else {
#pragma unroll
    for (int bits = W / 2; bits > 0; bits >>= 1) {
      const K other = __shfl_xor_sync(kFullWarp, key, bits);
      key = other > key ? other : key;
    }
    return key;
  }
}

// Hands out candidates, the largest key first, ties to the lower expert.
template <class A, int W, int N> struct Picker {
  using Key = SortKey<A>;
  LaneArray<Key, W, N> keys;
  Key best = 0;
  int at = -1;

  // Looks at this lane's keys from `first` to `end`, without the expert `taken`.
  __device__ void scan(int n, int taken, int first, int end) {
    best = 0;
    at = -1;
    each_expert<W, N>(n, [&](int i, int e) {
      if (e == taken) keys[i] = 0;
      if (e < first || e >= end) return;
      const Key key = keys[i];
      if (key > best) {
        best = key;
        at = e;
      }
    });
  }
  // The best expert, or -1, and its key.
  __device__ int top(Key& key) const {
    key = row_max<W>(best);
    const unsigned ties = row_ballot<W>(best == key);
    int winner = __shfl_sync(kFullWarp, at, __ffs(int(ties)) - 1, W);
    if (__any_sync(kFullWarp, (ties & (ties - 1)) != 0)) {
      winner = best == key ? at : 0x7fffffff;
#pragma unroll
      for (int bits = W / 2; bits > 0; bits >>= 1) winner = min(winner, __shfl_xor_sync(kFullWarp, winner, bits));
    }
    return key == 0 ? -1 : winner;
  }
  // Takes the best expert out.
  __device__ int next(int n) {
    Key key;
    const int winner = top(key);
    if (at == winner && winner >= 0) scan(n, winner, 0, n);
    return winner;
  }
};

}  // namespace libmoe::cuda

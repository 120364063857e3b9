#pragma once
// Kernels that work on whole rows of a [rows, width] tensor: a team of threads shares a row in packs of 16 bytes, and the packs of a row always go to the same
// threads, so that neither alignment nor the number of rows changes a bit.
#include <bit>

#include "cuda/core/block.h"
#include "cuda/core/convert.h"
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

constexpr int kRowThreads = 256;

// Who works on a row: `size` neighbouring lanes of a warp (a power of two, so that a block has kRowThreads / size teams), or the whole block.
template <bool kBlock> struct Team {
  int size;
  __device__ int lane() const { return int(threadIdx.x) & (size - 1); }
  __device__ int64_t first_row() const { return kBlock ? int64_t(blockIdx.x) : int64_t(blockIdx.x) * (kRowThreads / size) + int(threadIdx.x) / size; }
  __device__ int64_t row_step() const { return kBlock ? int64_t(gridDim.x) : int64_t(gridDim.x) * (kRowThreads / size); }
  // Every thread of the team gets f over its values. All threads of the block take part.
  template <class F, class A> __device__ A all(A x, F f = {}) const {
    if constexpr (kBlock) {
      return block_all<kRowThreads, F>(x, f);
    } else {
#pragma unroll
      for (int bits = 16; bits > 0; bits >>= 1) {
        const A other = __shfl_xor_sync(kFullWarp, x, bits);
        if (bits < size) x = f(x, other);
      }
      return x;
    }
  }
};

// A row, of which each thread keeps its first kKept packs in registers; the rest is read again, from cache, whenever it is asked for.
template <class T, int kKept, bool kBlock> struct Row {
  static constexpr int P = kPack<T>;
  const T* data;
  int64_t width;
  bool whole;  // every pack of the row lies on a 16-byte address and inside it
  Team<kBlock> team;
  Pack<T, P> kept[kKept];

  __device__ Row(const T* x, int64_t row_width, bool aligned, Team<kBlock> t) : data(x), width(row_width), whole(aligned), team(t) {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int64_t i = (int64_t(k) * team.size + team.lane()) * P;
      if (i < width) kept[k] = read(i);
    }
  }
  __device__ Pack<T, P> read(int64_t i) const {
    if (whole) return *reinterpret_cast<const Pack<T, P>*>(data + i);
    Pack<T, P> p{};
#pragma unroll
    for (int j = 0; j < P; ++j)
      if (i + j < width) p.at[j] = data[i + j];
    return p;
  }
  __device__ int count(int64_t i) const { return whole || width - i >= P ? P : int(width - i); }

  // body(first element, number of elements, pack) for this thread's packs, ascending.
  template <class F> __device__ void each(F&& body) const {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int64_t i = (int64_t(k) * team.size + team.lane()) * P;
      if (i < width) body(i, count(i), kept[k]);
    }
#pragma unroll 1
    for (int64_t i = (int64_t(kKept) * team.size + team.lane()) * P; i < width; i += int64_t(team.size) * P) body(i, count(i), read(i));
  }
};

// The same over two rows of one width.
template <class R, class F> __device__ inline void each_of_two(const R& a, const R& b, F&& body) {
  constexpr int kKept = sizeof(a.kept) / sizeof(a.kept[0]), P = R::P;
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    const int64_t i = (int64_t(k) * a.team.size + a.team.lane()) * P;
    if (i < a.width) body(i, a.count(i), a.kept[k], b.kept[k]);
  }
#pragma unroll 1
  for (int64_t i = (int64_t(kKept) * a.team.size + a.team.lane()) * P; i < a.width; i += int64_t(a.team.size) * P) body(i, a.count(i), a.read(i), b.read(i));
}

// Writes the first `count` elements of a pack.
template <class T, int N> __device__ inline void write_pack(T* y, const Pack<T, N>& p, int count, bool whole) {
  if (whole) {
    *reinterpret_cast<Pack<T, N>*>(y) = p;
    return;
  }
#pragma unroll
  for (int j = 0; j < N; ++j)
    if (j < count) y[j] = p.at[j];
}

// f32 within a pack, f64 from pack to pack: the sum of a row of any length has the error of a short one.
template <class T, class F> __device__ inline double pack_sum(const Pack<T, kPack<T>>& p, int count, F&& term) {
  Accumulator<T> s = 0;
#pragma unroll
  for (int j = 0; j < kPack<T>; ++j)
    if (j < count) s += term(load(p.at[j]));
  return double(s);
}

// How a kernel over rows of this width is launched; a function of the width alone.
template <class T> inline bool block_per_row(int64_t width) { return width * int64_t(sizeof(T)) > 4096; }
template <class T> inline int team_size(int64_t width) { return int(std::bit_ceil(uint64_t(std::clamp<int64_t>(blocks_for(width, kPack<T>), 1, 32)))); }

// body.template operator()<kBlock>(team, grid): whether a block or a team of lanes has a row.
template <class T, class F> inline void with_team(const DeviceState& state, int64_t rows, int64_t width, F&& body) {
  if (block_per_row<T>(width)) return body.template operator()<true>(Team<true>{kRowThreads}, grid_for(state, rows, 1, 8));
  const Team<false> team{team_size<T>(width)};
  body.template operator()<false>(team, grid_for(state, rows, kRowThreads / team.size, 8));
}

// Whether all rows of a tensor may be moved in packs of 16 bytes.
template <class T> inline bool whole_packs(const void* x, int64_t width) { return width % kPack<T> == 0 && aligned_to(x, 16); }

}  // namespace libmoe::cuda

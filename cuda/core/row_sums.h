#pragma once
// Sums of rows, which bias gradients are. Bytes: every row read once. A block sums 64 columns of one group of rows: 32 warps take every 32nd row each, a lane
// two columns; the warps' sums are added in order.
#include "cuda/core/convert.h"
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

constexpr int kRowsInPiece = 512;

// Groups: rows [offsets[g], offsets[g + 1]), or without offsets pieces of kRowsInPiece of all `rows`.
template <class T> struct RowSums {
  using A = Accumulator<T>;
  const T* x;                  // rows of n
  int64_t n;
  const int32_t* index;        // row r is stored at index[r]; or null
  const A* scale;              // of each row; or null
  const int32_t* offsets;
  int64_t rows;
  A* out;                      // [groups, n]
  bool add;
};

template <class T> __global__ void __launch_bounds__(1024) row_sums_kernel(RowSums<T> s) {
  using A = Accumulator<T>;
  __shared__ A parts[32][65];
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  const int64_t group = blockIdx.y, first = int64_t(blockIdx.x) * 64;
  const int64_t begin = s.offsets ? s.offsets[group] : group * kRowsInPiece, end = s.offsets ? s.offsets[group + 1] : min(s.rows, begin + kRowsInPiece);
  const int64_t c0 = first + lane, c1 = c0 + 32;
  A a0 = 0, a1 = 0;
#pragma unroll 4
  for (int64_t r = begin + warp; r < end; r += 32) {
    const T* row = s.x + (s.index ? s.index[r] : r) * s.n;
    const A w = s.scale ? s.scale[r] : A(1);
    if (c0 < s.n) a0 = fma(w, load(row[c0]), a0);
    if (c1 < s.n) a1 = fma(w, load(row[c1]), a1);
  }
  parts[warp][lane] = a0;
  parts[warp][lane + 32] = a1;
  __syncthreads();
  const int64_t column = first + threadIdx.x;
  if (threadIdx.x >= 64 || column >= s.n) return;
  A sum = s.add ? s.out[group * s.n + column] : A(0);
  for (int w = 0; w < 32; ++w) sum += parts[w][threadIdx.x];
  s.out[group * s.n + column] = sum;
}

// groups: the experts, with offsets; else counted from the rows.
template <class T> void sum_rows(const DeviceState& state, const RowSums<T>& s, int64_t groups) {
  constexpr int64_t kMost = 65535;  // of a grid's second dimension
  for (int64_t g = 0; g < groups; g += kMost) {
    RowSums<T> part = s;
    if (s.offsets) part.offsets = s.offsets + g;
    else part.x = s.x + g * kRowsInPiece * s.n, part.rows = s.rows - g * kRowsInPiece;
    part.out = s.out + g * s.n;
    launch(state, row_sums_kernel<T>, dim3(unsigned(blocks_for(s.n, 64)), unsigned(std::min(kMost, groups - g))), 1024, 0, part);
  }
}

// y[j] = (y[j] +) sum over rows of x[row, j]: pieces, then sums of pieces, until one is left.
template <class T> void sum_columns(const DeviceState& state, const T* x, int64_t rows, int64_t n, Accumulator<T>* y, bool add) {
  using A = Accumulator<T>;
  const int64_t pieces = std::max<int64_t>(1, blocks_for(rows, kRowsInPiece));
  if (pieces == 1) return sum_rows<T>(state, {x, n, nullptr, nullptr, nullptr, rows, y, add}, 1);
  const Scratch partial(state, size_t(pieces * n) * sizeof(A));
  sum_rows<T>(state, {x, n, nullptr, nullptr, nullptr, rows, partial.as<A>(), false}, pieces);
  sum_columns<A>(state, partial.as<A>(), pieces, n, y, add);
}

}  // namespace libmoe::cuda

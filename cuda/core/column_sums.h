#pragma once
// The second half of every reduction over rows: partial results of fixed chunks, [outer, chunks, width], become one row for each outer index. Sums run in f64: sixteen
// threads share a column, each takes every sixteenth chunk, and their results are joined in order. Bound by memory: every partial is read once.
#include "cuda/core/block.h"
#include "cuda/core/convert.h"
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

constexpr int kSumColumns = 32, kSumLanes = 16;

// Rows of partials are `stride` apart; finish(outer, column, result) writes.
template <class F, class A, class Finish>
__global__ void __launch_bounds__(kSumColumns* kSumLanes) join_chunks_kernel(const A* partial, int64_t outer, int64_t chunks, int64_t stride, int64_t width,
                                                                             Finish finish) {
  __shared__ double parts[kSumLanes][kSumColumns];
  const F f{};
  const int64_t tiles = (width + kSumColumns - 1) / kSumColumns;
  for (int64_t item = blockIdx.x; item < outer * tiles; item += gridDim.x) {
    const int64_t o = item / tiles, column = item % tiles * kSumColumns + threadIdx.x;
    double r = F::template identity<double>();
    if (column < width) {
#pragma unroll 4
      for (int64_t c = threadIdx.y; c < chunks; c += kSumLanes) r = f(r, double(partial[(o * chunks + c) * stride + column]));
    }
    parts[threadIdx.y][threadIdx.x] = r;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
      for (int k = 1; k < kSumLanes; ++k) r = f(r, parts[k][threadIdx.x]);
      finish(o, column, r);
    }
    __syncthreads();
  }
}

template <class F, class A, class Finish>
void join_chunks(const DeviceState& state, const A* partial, int64_t outer, int64_t chunks, int64_t stride, int64_t width, Finish finish) {
  launch(state, join_chunks_kernel<F, A, Finish>, grid_for(state, outer * blocks_for(width, kSumColumns), 1, 4), dim3(kSumColumns, kSumLanes), 0, partial,
         outer, chunks, stride, width, finish);
}

}  // namespace libmoe::cuda

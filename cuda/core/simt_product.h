#pragma once
// Products in f32 and f64 by fused multiply-adds. 2 m n k FLOPs, a third to two thirds of the FMA rate to be expected: 64 x 128 sums per block of 256 threads,
// 4 x 8 of them in each thread's registers, operands through shared memory in steps of 16 k, two steps deep. Parallel over tiles; the grid strides over them.
// Every sum is one accumulator over ascending k.
#include "cuda/core/product_shapes.h"

namespace libmoe::cuda {

namespace simt {

constexpr int kM = 64, kN = 128, kK = 16, kThreads = 256;
constexpr int kRowA = kM + 4, kRowB = kN + 4;

template <class T> constexpr size_t shared_bytes() {
  const size_t operands = 2 * kK * (kRowA + kRowB) * sizeof(T), sums = size_t(kM) * kN * sizeof(T);
  return operands > sums ? operands : sums;
}

// The elements of a tile of kRows rows and 16 k that a thread copies: the i-th is at row + i row_step, k + i k_step of the tile. Neighbouring threads copy
// neighbouring elements of the stored matrix.
template <int kRows> struct Share {
  int row, row_step, k, k_step;
  int64_t row_stride, k_stride;   // of the stored matrix
  __device__ Share(bool by_k, int64_t ld) {
    const int me = int(threadIdx.x);
    row = by_k ? me % kRows : me / kK;
    k = by_k ? me / kRows : me % kK;
    row_step = by_k ? 0 : kThreads / kK;
    k_step = by_k ? kThreads / kRows : 0;
    row_stride = by_k ? 1 : ld;
    k_stride = by_k ? ld : 1;
  }
};

template <class T, class E>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 && !std::is_same_v<E, SlopeEpilogue<T>> ? 2 : 1) kernel(Operand<T> a, Operand<T> b, bool a_by_k, bool b_by_k, Schedule s, E epilogue) {
  T* shared = dynamic_shared<T>();
  T *as = shared, *bs = shared + 2 * kK * kRowA;
  const int64_t total = tiles_of(s);
  const Share<kM> of_a(a_by_k, a.ld);
  const Share<kN> of_b(b_by_k, b.ld);
  const int column = int(threadIdx.x) % 16, first = int(threadIdx.x) / 16 * 4;
  constexpr int kEachA = kM * kK / kThreads, kEachB = kN * kK / kThreads;
  for (int64_t index = blockIdx.x; index < total; index += gridDim.x) {
    const Tile t = tile_at(s, index);
    if (epilogue.skips(t)) continue;
    const T *pa = a.data + t.group * a.stride, *pb = b.data + t.group * b.stride;
    T sums[4][8] = {}, next_a[kEachA], next_b[kEachB];
    const auto fetch = [&](int k0) {
#pragma unroll
      for (int i = 0; i < kEachA; ++i) {
        const int row = of_a.row + i * of_a.row_step, k = k0 + of_a.k + i * of_a.k_step;
        next_a[i] = T(0);
        if (row >= t.rows || k >= t.k_end) continue;
        const int64_t stored_row = a.index && !a_by_k ? a.index[t.m + row] : t.m + row, stored_k = a.index && a_by_k ? a.index[k] : k;
        next_a[i] = pa[stored_row * of_a.row_stride + stored_k * of_a.k_stride];
      }
#pragma unroll
      for (int i = 0; i < kEachB; ++i) {
        const int row = column_row<kN>(s, t.n, of_b.row + i * of_b.row_step), k = k0 + of_b.k + i * of_b.k_step;
        next_b[i] = T(0);
        if (row < 0 || k >= t.k_end) continue;
        const int64_t stored_k = b.index ? b.index[k] : k;
        next_b[i] = pb[row * of_b.row_stride + stored_k * of_b.k_stride];
      }
    };
    const auto put = [&](int buffer) {
#pragma unroll
      for (int i = 0; i < kEachA; ++i) as[(buffer * kK + of_a.k + i * of_a.k_step) * kRowA + of_a.row + i * of_a.row_step] = next_a[i];
#pragma unroll
      for (int i = 0; i < kEachB; ++i) bs[(buffer * kK + of_b.k + i * of_b.k_step) * kRowB + of_b.row + i * of_b.row_step] = next_b[i];
    };
    if (t.k_begin < t.k_end) {
      fetch(t.k_begin);
      put(0);
    }
    __syncthreads();
    int buffer = 0;
#pragma unroll 1
    for (int k0 = t.k_begin; k0 < t.k_end; k0 += kK) {
      const bool more = k0 + kK < t.k_end;
      if (more) fetch(k0 + kK);
#pragma unroll 4
      for (int k = 0; k < kK; ++k) {
        T x[4], y[8];
        const T *from_a = as + (buffer * kK + k) * kRowA + first, *from_b = bs + (buffer * kK + k) * kRowB + column * 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = from_a[i];
#pragma unroll
        for (int i = 0; i < 8; ++i) y[i] = from_b[i < 4 ? i : 60 + i];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 8; ++j) sums[i][j] = fma(x[i], y[j], sums[i][j]);
      }
      buffer ^= 1;
      if (more) put(buffer);
      __syncthreads();
    }
    const Staged<T, kN> staged{shared};
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) shared[Staged<T, kN>::at(first + i, column * 4 + (j < 4 ? j : 60 + j))] = sums[i][j];
    __syncthreads();
    epilogue.template finish<kM, kN, kThreads>(t, staged);
    __syncthreads();
  }
}

}  // namespace simt

template <class T, class E> void multiply_simt(const DeviceState& state, Product<T, E> p) {
  if (p.schedule.ragged == Ragged::rows && p.schedule.m_step != simt::kM) fail("ERR_LIBMOE_INTERNAL", "SIMT products take row tiles of 64");
  const int64_t tiles = cut(p, simt::kM, simt::kN);
  launch(state, simt::kernel<T, E>, grid_for(state, tiles, 1, 4), simt::kThreads, simt::shared_bytes<T>(), p.a, p.b, p.a_by_k, p.b_by_k, p.schedule, p.epilogue);
}

}  // namespace libmoe::cuda

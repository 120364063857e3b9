#pragma once
// The bf16 products of Ampere: mma.sync of 16 x 8 x 16 from fragments that ldmatrix takes out of swizzled shared memory, which cp.async fills steps of 32 k
// ahead. 2 m n k FLOPs at the tensor cores' rate, of which shared memory allows all with warps of 64 x 64 sums (4 KiB read per 131 kFLOP); an operand panel is
// read once per tile, mostly from L2. Parallel over tiles: a persistent grid walks the tile list; two blocks on a multiprocessor, so that one's epilogue hides
// behind the other's products. Every sum is one accumulator over ascending k in steps of 16, whatever the tile: a row's bits depend on nothing else.
#include "cuda/core/product_shapes.h"
#include "cuda/sm80/loader.h"

namespace libmoe::cuda::sm80 {

template <int M, int N, int WarpM, int WarpN, int Blocks, int Stages = 4> struct Shape {
  static constexpr int kM = M, kN = N, kWarpM = WarpM, kWarpN = WarpN, kStages = Stages, kBlocks = Blocks;  // kBlocks: per multiprocessor
  static constexpr int kWarpsN = N / WarpN, kThreads = 32 * (M / WarpM) * kWarpsN;
};
using Wide = Shape<128, 256, 64, 64, 1>;     // long inner sizes
using Square = Shape<128, 128, 64, 64, 2>;
using Half = Shape<64, 128, 32, 64, 2>;
using Few = Shape<16, 128, 16, 32, 2, 8>;      // bound by the weights' bytes: 63 KiB of them under way per block
using Odd = Shape<128, 128, 64, 32, 1>;      // rows that are not pieces of 16 bytes

template <class S> constexpr int kStageBytes = (S::kM + S::kN) * kStep * 2;
template <class S> constexpr size_t shared_bytes() { return std::max(size_t(S::kStages * kStageBytes<S>), size_t(S::kM) * S::kN * sizeof(float)); }

// One warp's sums of a tile, and the fragments that they are made of.
template <class S, bool kByKA, bool kByKB> struct WarpTile {
  static constexpr int kRows = S::kWarpM / 16, kColumns = S::kWarpN / 16;
  float sums[kRows][kColumns * 2][4];
  uint32_t a[2][kRows][4], b[2][kColumns][4];
  int row, column;           // of the tile
  uint32_t from_a, from_b;   // this lane's row addresses within a stage

  __device__ WarpTile() {
    const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
    row = warp / S::kWarpsN * S::kWarpM;
    column = warp % S::kWarpsN * S::kWarpN;
    // Matrices of ldmatrix.x4 for a: rows 0-7 and 8-15 at k 0-7, then at k 8-15; for b: columns 0-7 at k 0-7 and k 8-15, then columns 8-15.
    if constexpr (kByKA) from_a = by_k_offset<S::kM>((lane & 7) + (lane >> 4) * 8, row / 8 + (lane >> 3 & 1));
    else from_a = by_row_offset(row + (lane & 15), lane >> 4);
    if constexpr (kByKB) from_b = by_k_offset<S::kN>(lane & 15, column / 8 + (lane >> 4));
    else from_b = by_row_offset(column + (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
    from_b += S::kM * kStep * 2;
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns * 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;
  }
  // Offsets are multiples of what they are combined with by exclusive or: stages begin at multiples of 128 bytes.
  __device__ void load(uint32_t stage, int step, int buffer) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if constexpr (kByKA) ptx::ldmatrix_x4_transposed(a[buffer][i], stage + ((from_a ^ uint32_t(i * 32)) + uint32_t(step * 16 * S::kM * 2)));
      else ptx::ldmatrix_x4(a[buffer][i], stage + ((from_a ^ uint32_t(step * 32)) + uint32_t(i * 16 * kStep * 2)));
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if constexpr (kByKB) ptx::ldmatrix_x4_transposed(b[buffer][j], stage + ((from_b ^ uint32_t(j * 32)) + uint32_t(step * 16 * S::kN * 2)));
      else ptx::ldmatrix_x4(b[buffer][j], stage + ((from_b ^ uint32_t(step * 32)) + uint32_t(j * 16 * kStep * 2)));
    }
  }
  __device__ void multiply(int buffer) {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        ptx::mma_bf16(sums[i][2 * j], a[buffer][i], b[buffer][j][0], b[buffer][j][1]);
        ptx::mma_bf16(sums[i][2 * j + 1], a[buffer][i], b[buffer][j][2], b[buffer][j][3]);
      }
  }
  __device__ void stage(const Staged<float, S::kN>& staged) const {
    const int lane = int(threadIdx.x) & 31;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns * 2; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int r = row + i * 16 + half * 8 + lane / 4, c = column + j * 8 + lane % 4 * 2;
          *reinterpret_cast<float2*>(staged.data + Staged<float, S::kN>::at(r, c)) = make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
        }
  }
};

template <class S, bool kByKA, bool kByKB, bool kPieces, class E>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) product_kernel(Operand<bf16> a, Operand<bf16> b, Schedule schedule, E epilogue) {
  unsigned char* const shared = dynamic_shared<unsigned char>();
  const uint32_t base = ptx::shared_address(shared);
  const int64_t total = tiles_of(schedule);
  WarpTile<S, kByKA, kByKB> warp;
  for (int64_t index = blockIdx.x; index < total; index += gridDim.x) {
    const Tile t = tile_at(schedule, index);
    if (epilogue.skips(t)) continue;
    Loader<S::kM, S::kThreads, kByKA, kPieces> load_a;
    Loader<S::kN, S::kThreads, kByKB, kPieces> load_b;
    load_a.start(a, t.group, t.k_begin, t.k_end, [&](int r) { return r < t.rows ? t.m + r : -1; });
    load_b.start(b, t.group, t.k_begin, t.k_end, [&](int j) { return column_row<S::kN>(schedule, t.n, j); });
    const int steps = (t.k_end - t.k_begin + kStep - 1) / kStep;
    const auto fetch = [&](int step) {
      if (step < steps) {
        const int offset = step % S::kStages * kStageBytes<S>, k = t.k_begin + step * kStep;
        load_a.load(shared, base, offset, k, t.k_end);
        load_b.load(shared, base, offset + S::kM * kStep * 2, k, t.k_end);
      }
      ptx::cp_async_commit();
    };
#pragma unroll 1
    for (int step = 0; step < S::kStages - 1; ++step) fetch(step);
    warp.clear();
    // A warp all of whose rows lie beyond the end of the expert has nothing to multiply.
    const bool works = warp.row < t.rows;
    ptx::cp_async_wait<S::kStages - 2>();
    __syncthreads();
    if (works) warp.load(base, 0, 0);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      if (works) warp.load(base + step % S::kStages * kStageBytes<S>, 1, 1);
      fetch(step + S::kStages - 1);
      if (works) warp.multiply(0);
      ptx::cp_async_wait<S::kStages - 2>();
      __syncthreads();
      if (works) {
        warp.load(base + (step + 1) % S::kStages * kStageBytes<S>, 0, 0);
        warp.multiply(1);
      }
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
    const Staged<float, S::kN> staged{reinterpret_cast<float*>(shared)};
    warp.stage(staged);
    __syncthreads();
    epilogue.template finish<S::kM, S::kN, S::kThreads>(t, staged);
    __syncthreads();
  }
}

template <class S, bool kByKA, bool kByKB, bool kPieces, class E> void run(const DeviceState& state, Product<bf16, E> p) {
  const int64_t tiles = cut(p, S::kM, S::kN);
  launch(state, product_kernel<S, kByKA, kByKB, kPieces, E>, grid_for(state, tiles, 1, S::kBlocks), S::kThreads, shared_bytes<S>(), p.a, p.b, p.schedule, p.epilogue);
}

// Tiles of S that a product has at most.
template <class S, class E> int64_t tiles_with(Product<bf16, E> p) { return cut(p, S::kM, S::kN); }

// The shape is chosen by sizes alone; bits do not depend on it.
template <bool kByKA, bool kByKB, class E> void multiply(const DeviceState& state, const Product<bf16, E>& p) {
  const Schedule& s = p.schedule;
  if (!pieces_of_sixteen(p.a) || !pieces_of_sixteen(p.b)) return run<Odd, kByKA, kByKB, false>(state, p);
  const int height = s.ragged == Ragged::rows ? s.m_step : s.m;
  if constexpr (!kByKA)
    if (height <= 16) return run<Few, kByKA, kByKB, true>(state, p);
  if (height <= 64 || (s.ragged == Ragged::none && tiles_with<Square>(p) < state.multiprocessors)) {
    if (s.ragged != Ragged::rows || height <= 64) return run<Half, kByKA, kByKB, true>(state, p);
  }
  if constexpr (!kByKA && std::is_same_v<E, StoreEpilogue<bf16>>)
    if (s.k >= 1024 && s.n >= 256 && shared_bytes<Wide>() <= state.shared_bytes && tiles_with<Wide>(p) >= 2 * state.multiprocessors) return run<Wide, kByKA, kByKB, true>(state, p);
  run<Square, kByKA, kByKB, true>(state, p);
}

}  // namespace libmoe::cuda::sm80

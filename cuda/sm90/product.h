#pragma once
// The matrix product of Hopper: c = a b for one product, a batch, the rows of experts, or over the rows of experts, in bf16 with f32 sums.
//
// Floors: 2 m n k FLOPs at the card's dense bf16 rate; each operand once from memory. A tile of 128 x N reads (128 + N) k elements through L2, hence N = 256
// where there are columns for it. Blocks stay: one on each multiprocessor, taking tiles in turn. Of its three warp groups the first only moves data: stages of
// 64 k go into a ring in shared memory. An operand that is stored as rows comes by the copy engine (boxes, counted in bytes by an mbarrier); where rows are
// gathered, or end inside a stage with the next expert's behind them, all 128 threads copy 16 bytes at a time and arrive at the same mbarrier. The other two
// groups hold the sums in registers and multiply from the ring, one group of wgmma ahead of the stage they free. Then every warp stages its 16 rows through
// shared memory of its own and finishes them (core/product_epilogue.h).
//
// An element is one sum over ascending k in steps of 16, whatever tile it lies in; rows past the end of an expert are multiplied and dropped.
#include <algorithm>

#include "cuda/core/product_shapes.h"
#include "cuda/core/ptx90.h"
#include "cuda/core/tensor_map.h"

namespace libmoe::cuda::sm90 {

constexpr int kRows = 128, kInner = 64, kGroup = 128, kThreads = 3 * kGroup;
constexpr int kAtom = 64 * 128;  // bytes of 64 swizzled rows of 128 bytes: 64 rows of 64 k, or 64 k of 64 columns
// A multiprocessor has 65536 registers; the kernel is launched with what the compiler gives each thread for blocks of kThreads that are alone on one, rounded down to
// eight, and the groups then hand registers over. Should the kernel have fewer, the multipliers would wait for ever for what nobody gives back: the test of the machine
// code looks at every kernel that does this.
constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8, kMoverRegisters = 40, kMultiplierRegisters = 232;
static_assert(kLaunchRegisters == 168 && kGroup * kMoverRegisters + 2 * kGroup * kMultiplierRegisters <= kThreads * kLaunchRegisters);
static_assert(kMoverRegisters % 8 == 0 && kMultiplierRegisters % 8 == 0);

// N columns of a tile, kStaged of which pass through shared memory at a time.
template <int N, int kStaged> struct Shared {
  static constexpr int a_bytes = kRows * kInner * 2, b_bytes = N * kInner * 2, stage_bytes = a_bytes + b_bytes;
  static constexpr int staging_bytes = kRows * kStaged * 4, most = 227 * 1024;
  static constexpr int stages = (most - staging_bytes - 256) / stage_bytes;
  static constexpr int staging = stages * stage_bytes, full = staging + staging_bytes, empty = full + 8 * stages, turn = empty + 8 * stages, bytes = turn + 16;
  static_assert(stages >= 4);
};

// Tiles of 256 columns are summed by both groups together, 64 rows each: the longer the inner size, the less their epilogue counts. Those of 128 columns are
// summed by either group in turn, so that one multiplies while the other finishes.
template <int N> constexpr bool kAlternate = N <= 128;

// Where in the ring a warp group is. The first round finds every stage empty.
template <int kStages> struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
  __device__ void skip(int steps) {
    const int to = stage + steps;
    stage = to % kStages;
    parity ^= uint32_t(to / kStages) & 1u;
  }
};

template <class E> struct Arguments {
  CUtensorMap a_map, b_map;  // unset where rows are gathered
  Operand<bf16> a, b;
  Schedule schedule;
  E epilogue;
  bool copies;  // the threads copy some of the stages
};

// Which stored rows are the 64 k of a stage that this thread copies: thread / 8 + 16 i. Looked up a stage ahead, as the answer takes as long as a stage.
struct InnerRows {
  int stored[4];

  __device__ void find(const int32_t* index, int row, int end) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int k = row + (int(threadIdx.x) >> 3) + 16 * i;
      stored[i] = k >= end ? -1 : index ? index[k] : k;
    }
  }
  // These, for an operand that is gathered; an operand that is not has row k for k.
  __device__ InnerRows of(const Operand<bf16>& from, int row, int end) const {
    InnerRows direct;
    direct.find(nullptr, row, end);
#pragma unroll
    for (int i = 0; i < 4; ++i) direct.stored[i] = from.index ? stored[i] : direct.stored[i];
    return direct;
  }
  // kAtoms * 64 columns from `column` on, stored by k, to an operand's place in a stage; zeros from column `columns` on.
  template <int kAtoms> __device__ void copy(uint32_t to, const Operand<bf16>& from, int column, int columns) const {
    const int chunk = int(threadIdx.x) & 7, first = int(threadIdx.x) >> 3, at = column + chunk * 8;
    const uint32_t place = to + uint32_t(first * 128 + ((chunk ^ (first & 7)) << 4));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bf16* source = from.data + (stored[i] < 0 ? 0 : stored[i]) * from.ld + at;
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom) {
        const bool inside = stored[i] >= 0 && at + atom * 64 < columns;
        ptx::cp_async_16(place + i * 16 * 128 + atom * kAtom, inside ? source + atom * 64 : from.data, inside);
      }
    }
  }
};

// The gathered rows of a tile that this thread copies: rows thread / 8 + 16 i, 16 bytes of each.
struct GatheredRows {
  int stored[8];

  __device__ void find(const Operand<bf16>& from, const Tile& t) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = (int(threadIdx.x) >> 3) + 16 * i;
      stored[i] = row < t.rows ? from.index[t.m + row] : -1;
    }
  }
  __device__ void copy(uint32_t to, const Operand<bf16>& from, int k, int end) const {
    const int chunk = int(threadIdx.x) & 7, first = int(threadIdx.x) >> 3, at = k + chunk * 8;
    const uint32_t place = to + uint32_t(first * 128 + ((chunk ^ (first & 7)) << 4));
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const bool inside = stored[i] >= 0 && at < end;
      ptx::cp_async_16(place + i * 16 * 128, inside ? from.data + stored[i] * from.ld + at : from.data, inside);
    }
  }
};

template <int N, bool kMnMajorA, bool kMnMajorB, int kStaged, class E> __device__ __forceinline__ void move(const Arguments<E>& p, uint32_t shared, int64_t tiles) {
  using S = Shared<N, kStaged>;
  const Schedule& s = p.schedule;
  const bool first = threadIdx.x == 0;
  if (!p.copies && !first) return;
  Ring<S::stages> ring;
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const Tile t = tile_at(s, index);
    if (p.epilogue.skips(t)) continue;
    const int a_group = s.ragged == Ragged::none ? t.group : 0, b_group = s.ragged == Ragged::inner ? 0 : t.group;
    GatheredRows gathered;
    if (!kMnMajorA && p.a.index) gathered.find(p.a, t);
    InnerRows next;
    const int32_t* const index_k = p.a.index ? p.a.index : p.b.index;
    if (kMnMajorA && p.copies) next.find(index_k, t.k_begin, t.k_end);
    for (int k = t.k_begin; k < t.k_end; k += kInner, ring.advance()) {
      const uint32_t a = shared + uint32_t(ring.stage * S::stage_bytes), b = a + S::a_bytes, full = shared + S::full + 8 * ring.stage;
      const bool cut = s.ragged == Ragged::inner && k + kInner > t.k_end, copy_a = p.a.index || cut, copy_b = p.b.index || cut;
      const InnerRows rows = next;
      if (kMnMajorA && p.copies) next.find(index_k, k + kInner, t.k_end);
      ptx::mbarrier_wait(shared + S::empty + 8 * ring.stage, ring.parity ^ 1);
      if (first) {
        ptx::mbarrier_arrive_expect(full, (copy_a ? 0 : S::a_bytes) + (copy_b ? 0 : S::b_bytes));
        if (!copy_a) {
          if constexpr (kMnMajorA) {
            for (int atom = 0; atom < kRows / 64; ++atom) ptx::copy_box(a + atom * kAtom, &p.a_map, full, t.m + atom * 64, k, a_group);
          } else {
            ptx::copy_box(a, &p.a_map, full, k, t.m, a_group);
          }
        }
        if (!copy_b) {
          if constexpr (kMnMajorB) {
            for (int atom = 0; atom < N / 64; ++atom) ptx::copy_box(b + atom * kAtom, &p.b_map, full, t.n + atom * 64, k, b_group);
          } else {
            ptx::copy_box(b, &p.b_map, full, k, t.n, b_group);
            if (s.pair) ptx::copy_box(b + S::b_bytes / 2, &p.b_map, full, k, s.pair + t.n, b_group);
          }
        }
      }
      if (!p.copies) continue;
      if constexpr (kMnMajorA) {
        if (copy_a) rows.of(p.a, k, t.k_end).template copy<kRows / 64>(a, p.a, t.m, s.m);
        if (copy_b) rows.of(p.b, k, t.k_end).template copy<N / 64>(b, p.b, t.n, s.n);
      } else if (copy_a) {
        gathered.copy(a, p.a, k, t.k_end);
      }
      ptx::cp_async_arrive(full);
    }
  }
  if (p.copies) ptx::cp_async_wait<0>();  // no thread ends with copies of its own under way
}

// Columns [c, c + 1) * kStaged of the sums to a warp's place; of a gated tile as many half columns from either half.
// Inlined, as are sum and multiply: the sums are registers that wgmma names, they can go through no call.
template <int N, int kStaged> __device__ __forceinline__ void stage(const float (&d)[N / 2], int c, bool paired, const Staged<float, kStaged>& to) {
  constexpr int kUnits = kStaged / 8, kHalf = kUnits / 2;
  const int lane = int(threadIdx.x) & 31, row = lane / 4, column = lane % 4 * 2;
#pragma unroll
  for (int part = 0; part < N / kStaged; ++part) {
    if (part != c) continue;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int plain = (part * kUnits + u) * 4, pair = (part * kHalf + u % kHalf + u / kHalf * (N / 16)) * 4;
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = paired ? d[pair + i] : d[plain + i];
      *reinterpret_cast<float2*>(to.data + to.at(row, u * 8 + column)) = make_float2(v[0], v[1]);
      *reinterpret_cast<float2*>(to.data + to.at(row + 8, u * 8 + column)) = make_float2(v[2], v[3]);
    }
  }
}

// One tile's sums: of kHalves times 64 rows, from wherever the ring is. Frees every stage as soon as the products after it are under way. Groups in turn: the other may
// begin when this one has seen its last stage full, no sooner, as a barrier can be asked about the phase that runs and the one before only.
template <int N, bool kMnMajorA, bool kMnMajorB, int kStaged, int kHalves, int kMost>
__device__ __forceinline__ void sum(float (&d)[kMost][N / 2], const Tile& t, uint32_t shared, uint32_t a_part, bool copies, Ring<Shared<N, kStaged>::stages>& ring) {
  using S = Shared<N, kStaged>;
  const bool frees = (threadIdx.x & 31u) == 0;
  int last = -1;
  for (int k = t.k_begin; k < t.k_end; k += kInner, ring.advance()) {
    ptx::mbarrier_wait(shared + S::full + 8 * ring.stage, ring.parity);
    if constexpr (kHalves > 0) {
      if (copies) ptx::fence_async_proxy();
      const uint32_t a = shared + uint32_t(ring.stage * S::stage_bytes), b = a + S::a_bytes;
      const uint64_t a_at = ptx::matrix_descriptor(a + a_part, kAtom, 1024), b_at = ptx::matrix_descriptor(b, kAtom, 1024);
      ptx::wgmma_fence();
#pragma unroll
      for (int i = 0; i < kInner / 16; ++i) {
        // The next 16 k: 32 bytes on along a row, or 16 rows of 128 bytes down; addresses count in 16 bytes.
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
          ptx::wgmma<kMnMajorA, kMnMajorB>(d[half], a_at + half * (kAtom / 16) + i * (kMnMajorA ? 128 : 2), b_at + i * (kMnMajorB ? 128 : 2));
        }
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      if (last >= 0 && frees) ptx::mbarrier_arrive(shared + S::empty + 8 * last);
      last = ring.stage;
    } else {
      __syncwarp();  // all lanes have seen this phase before it can be over
      if (frees) ptx::mbarrier_arrive(shared + S::empty + 8 * ring.stage);
    }
  }
  __syncwarp();
  if (kAlternate<N> && frees) ptx::mbarrier_arrive(shared + S::turn + 8 * (threadIdx.x < 2 * kGroup ? 1 : 0));
  if constexpr (kHalves > 0) {
    ptx::wgmma_wait<0>();
#pragma unroll
    for (int half = 0; half < kHalves; ++half) ptx::pin(d[half]);
    if (last >= 0 && frees) ptx::mbarrier_arrive(shared + S::empty + 8 * last);
  }
}

template <int N, bool kMnMajorA, bool kMnMajorB, int kStaged, class E>
__device__ __forceinline__ void multiply(const Arguments<E>& p, unsigned char* memory, uint32_t shared, int64_t tiles) {
  using S = Shared<N, kStaged>;
  constexpr int kHalves = kAlternate<N> ? 2 : 1;
  const Schedule& s = p.schedule;
  const int group = int(threadIdx.x) / kGroup - 1, warp = int(threadIdx.x) / 32 % 4, lane = int(threadIdx.x) & 31;
  const int first_row = kAlternate<N> ? 0 : group * 64;
  const Staged<float, kStaged> staged{reinterpret_cast<float*>(memory + S::staging) + (group * 4 + warp) * 16 * kStaged};
  Ring<S::stages> ring;
  int turn = 0;  // tiles so far, of both groups
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const Tile t = tile_at(s, index);
    if (p.epilogue.skips(t)) continue;
    if constexpr (kAlternate<N>) {
      const int now = turn++;
      if (now % 2 != group) {
        ring.skip((t.k_end - t.k_begin + kInner - 1) / kInner);
        continue;
      }
      if (now > 0) ptx::mbarrier_wait(shared + S::turn + 8 * group, uint32_t(now - 1) / 2 & 1u);
    }
    float d[kHalves][N / 2];
#pragma unroll
    for (int i = 0; i < kHalves * N / 2; ++i) d[i / (N / 2)][i % (N / 2)] = 0.0f;
    // Few rows: the 64 without any are not multiplied.
    if (t.rows > first_row + (kHalves - 1) * 64) sum<N, kMnMajorA, kMnMajorB, kStaged, kHalves>(d, t, shared, uint32_t(first_row) * 128, p.copies, ring);
    else sum<N, kMnMajorA, kMnMajorB, kStaged, kHalves - 1>(d, t, shared, uint32_t(first_row) * 128, p.copies, ring);

#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      Tile part = t;
      const int row = first_row + half * 64 + warp * 16;
      part.m += row;
      part.rows -= row;
      if (part.rows <= 0) break;
#pragma unroll 1
      for (int c = 0; c < N / kStaged && part.n < s.n; ++c) {
        stage<N>(d[half], c, s.pair > 0, staged);
        __syncwarp();
        p.epilogue.template finish<16, kStaged, 32>(part, staged, lane);
        __syncwarp();
        part.n += s.pair ? kStaged / 2 : kStaged;
      }
    }
  }
}

template <int N, bool kMnMajorA, bool kMnMajorB, int kStaged, class E>
__global__ void __launch_bounds__(kThreads, 1) product_kernel(const __grid_constant__ Arguments<E> p) {
  using S = Shared<N, kStaged>;
  unsigned char* const memory = dynamic_shared<unsigned char>();
  const uint32_t shared = ptx::shared_address(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::stages; ++i) {
      ptx::mbarrier_init(shared + S::full + 8 * i, p.copies ? 1 + kGroup : 1);
      ptx::mbarrier_init(shared + S::empty + 8 * i, (kAlternate<N> ? 1 : 2) * kGroup / 32);
    }
    ptx::mbarrier_init(shared + S::turn, kGroup / 32);
    ptx::mbarrier_init(shared + S::turn + 8, kGroup / 32);
    ptx::fence_mbarrier_init();
    if (!p.a.index) ptx::prefetch_map(&p.a_map);
    if (!p.b.index) ptx::prefetch_map(&p.b_map);
  }
  __syncthreads();
  const int64_t tiles = tiles_of(p.schedule);
  if (threadIdx.x < kGroup) {
    ptx::registers_down<kMoverRegisters>();
    move<N, kMnMajorA, kMnMajorB, kStaged>(p, shared, tiles);
  } else {
    ptx::registers_up<kMultiplierRegisters>();
    multiply<N, kMnMajorA, kMnMajorB, kStaged>(p, memory, shared, tiles);
  }
}

// Tiles of 256 columns read least, where the inner size is long enough to hide little behind it (0: known to the device alone) and the last tile is not mostly empty.
// A question of the shape of one row's product alone.
inline bool wide_tiles(int64_t columns, int64_t inner) {
  return (inner == 0 || inner > 512) && blocks_for(columns, 256) * 256 * 7 <= blocks_for(columns, 128) * 128 * 8;
}

// `slots`: the stored rows of an operand whose rows are split among experts.
template <int N, bool kMnMajorA, bool kMnMajorB, int kStaged, class E> void run(const DeviceState& state, Product<bf16, E> p, int64_t slots) {
  using S = Shared<N, kStaged>;
  const int64_t tiles = cut(p, kRows, N);
  const Schedule& s = p.schedule;
  Arguments<E> arguments{};
  arguments.a = p.a;
  arguments.b = p.b;
  arguments.schedule = s;
  arguments.epilogue = p.epilogue;
  arguments.copies = p.a.index || p.b.index || s.ragged == Ragged::inner;
  const int64_t inner = s.ragged == Ragged::inner ? slots : s.k;
  if (!p.a.index) {
    const int64_t groups = s.ragged == Ragged::none ? s.groups : 1;
    arguments.a_map = kMnMajorA ? tensor_map(p.a.data, s.m, inner, groups, p.a.ld, p.a.stride, 64)
                                : tensor_map(p.a.data, inner, s.ragged == Ragged::rows ? slots : s.m, groups, p.a.ld, p.a.stride, kRows);
  }
  if (!p.b.index) {
    const int64_t groups = s.ragged == Ragged::inner ? 1 : s.groups;
    arguments.b_map = kMnMajorB ? tensor_map(p.b.data, s.n, inner, groups, p.b.ld, p.b.stride, 64)
                                : tensor_map(p.b.data, inner, s.pair ? 2 * s.n : s.n, groups, p.b.ld, p.b.stride, s.pair ? N / 2 : N);
  }
  launch(state, product_kernel<N, kMnMajorA, kMnMajorB, kStaged, E>, unsigned(std::min<int64_t>(tiles, state.multiprocessors)), kThreads, S::bytes, arguments);
}

}  // namespace libmoe::cuda::sm90

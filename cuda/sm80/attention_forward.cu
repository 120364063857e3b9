// Forward attention for bf16 on tensor cores: mma.sync m16n8k16, sums in f32, softmax in base 2 with a running maximum.
//
// Floor: 2 (width + value width) FLOP per column and visible key; bytes: q and out once, keys and values once per tile of columns, of which the first-come tiles of a
// sequence leave the rest in the second-level cache. With 128 columns a tile has 256 FLOP per byte of keys and values: bound by the tensor cores. Decoding has a
// tile of few columns and is bound by reading the cache of keys.
//
// One block of 4 warps per (tile of columns, key head). A warp owns 32 columns (16 where the widths are 192) and all their sums. Budget: 255 registers, at value width
// 128 these are 128 of sums and 64 of scores. Its operands from shared memory serve both halves of its columns: 6 ldmatrix per 16 mma. The columns' queries stay
// in shared memory; keys and values have one buffer each and are copied in turn, values while the scores are computed, the next keys while the values are
// used: 64 KiB at width 128, two blocks to a multiprocessor. Sums of a column run over its keys in one order, whatever the tile: every output has the
// same bits from `attention` and from `attention_cached`.
#include "cuda/sm80/attention_tile.h"

namespace libmoe::cuda::sm80 {
namespace {

constexpr int kThreads = 128;

struct ForwardPlan {
  float scale = 1;  // log2(e) included
  int access = 2, value_access = 2;
  bool pairs = false;  // of outputs
};

template <int D, int DV> constexpr int kHalves = D <= 128 ? 2 : 1;  // times 16 columns per warp
template <int D, int DV> constexpr int kColumnTile = kThreads / 2 * kHalves<D, DV>;

template <int D, int DV>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(AttentionCall call, ForwardPlan plan, const bf16* q, const bf16* k, const bf16* v, const bf16* sinks,
                                                              bf16* out, float* log_sum) {
  constexpr int M = kHalves<D, DV>, kTile = kColumnTile<D, DV>;
  AttentionTile tile;
  if (!find_tile<true>(call, call.group, kTile, tile)) return;
  constexpr uint32_t kKeysAt = tile_bytes<D>(kTile), kValuesAt = kKeysAt + tile_bytes<D>(kKeyTile);
  const AttentionSequence& s = tile.sequence;
  const int lane = int(threadIdx.x) % 32, own = int(threadIdx.x) / 32 * 16 * M;  // first row of this warp in the tile
  const uint32_t shared = ptx::shared_address(dynamic_shared<unsigned char>()), left_at = rows_address<D>(shared, own, lane),
                 right_at = columns_address<D>(shared + kKeysAt, 0, lane), value_at = rows_address<DV>(shared + kValuesAt, 0, lane);
  const int columns = s.queries * call.group;
  const Sight all = sight_of(call, s, tile.begin, min(tile.begin + kTile, columns));
  const bool active = tile.begin + own < columns;
  const int first_column = min(tile.begin + own, columns - 1), last_column = min(tile.begin + own + 16 * M, columns) - 1;
  const Sight of_first = sight_of(call, s, first_column), of_last = sight_of(call, s, last_column);

  const auto load_keys = [&](int begin) {
    load_tile<D, kKeyTile, kThreads>(kKeysAt, call.width, plan.access, k, [&](int r) -> const bf16* {
      const int64_t row = all.sees(begin + r) ? key_row(call, tile, begin + r) : -1;  // what no column sees is never read: its page may be gone
      return row < 0 ? nullptr : k + row * call.width;
    });
    ptx::cp_async_commit();
  };
  const auto load_values = [&](int begin) {
    load_tile<DV, kKeyTile, kThreads>(kValuesAt, call.value_width, plan.value_access, v, [&](int r) -> const bf16* {
      const int64_t row = all.sees(begin + r) ? key_row(call, tile, begin + r) : -1;
      return row < 0 ? nullptr : v + row * call.value_width;
    });
    ptx::cp_async_commit();
  };
  load_tile<D, kTile, kThreads>(0, call.width, plan.access, q,
                                [&](int r) -> const bf16* { return tile.begin + r < columns ? q + column_row(call, tile, tile.begin + r) * call.width : nullptr; });
  int begin = all.first / kKeyTile * kKeyTile;
  load_keys(begin);

  // In shared memory, for the tiles that some column sees in part only: registers are short.
  __shared__ int positions[kTile];
  for (int r = int(threadIdx.x); r < kTile; r += kThreads) positions[r] = position_of(call, s, min(tile.begin + r, columns - 1));

  // This thread has two rows of each half: lane / 4 and eight further.
  float sums[M][DV / 8][4], top[M][2], total[M][2];
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < DV / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[m][n][e] = 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int column = min(tile.begin + own + m * 16 + h * 8 + lane / 4, columns - 1);
      // A sink is as if it had been the first key; of the four threads of a row one counts it.
      top[m][h] = sinks ? load(sinks[tile.head * call.group + column % call.group]) * kLog2E : -INFINITY;
      total[m][h] = sinks && lane % 4 == 0 ? 1.0f : 0.0f;
    }
  }

#pragma unroll 1
  for (; begin <= all.last; begin += kKeyTile) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // the keys have come, and all warps have used the values before
    load_values(begin);
    // Tiles that this warp does not see would change nothing.
    const bool sees = active && begin <= of_last.last && begin + kKeyTile > of_first.first;
    uint32_t weights[M][kKeyTile / 16][4];
    if (sees) {
      float scores[M][kKeyTile / 8][4];
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < kKeyTile / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) scores[m][n][e] = 0;
#pragma unroll 2
      for (int step = 0; step < D / 16; ++step) {
        uint32_t left[M][4], right[4];
#pragma unroll
        for (int m = 0; m < M; ++m) ptx::ldmatrix_x4(left[m], block_at<D>(left_at, m, step));
#pragma unroll
        for (int n = 0; n < kKeyTile / 16; ++n) {
          ptx::ldmatrix_x4(right, block_at<D>(right_at, n, step));
#pragma unroll
          for (int m = 0; m < M; ++m) {
            ptx::mma_bf16(scores[m][2 * n], left[m], right[0], right[1]);
            ptx::mma_bf16(scores[m][2 * n + 1], left[m], right[2], right[3]);
          }
        }
      }
      const bool whole = begin >= of_last.first && begin + kKeyTile - 1 <= of_first.last;
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float highest = top[m][h];
          const Sight sight = whole ? of_first : sight_from(call, s, positions[own + m * 16 + h * 8 + lane / 4]);
#pragma unroll
          for (int n = 0; n < kKeyTile / 8; ++n)
#pragma unroll
            for (int e = 2 * h; e < 2 * h + 2; ++e) {
              float x = scores[m][n][e] * plan.scale;
              if (!whole && !sight.sees(begin + n * 8 + lane % 4 * 2 + (e & 1))) x = -INFINITY;
              scores[m][n][e] = x;
              highest = fmaxf(highest, x);
            }
          highest = fmaxf(highest, __shfl_xor_sync(kFullWarp, highest, 1));
          highest = fmaxf(highest, __shfl_xor_sync(kFullWarp, highest, 2));
          // A column that has seen no key yet: nothing to shift by, and exp(-inf) is 0 as it must be.
          const float shift = highest == -INFINITY ? 0.0f : highest, factor = ptx::exp2_approximate(top[m][h] - shift);
          float sum = 0;
#pragma unroll
          for (int n = 0; n < kKeyTile / 8; ++n)
#pragma unroll
            for (int e = 2 * h; e < 2 * h + 2; ++e) {
              scores[m][n][e] = ptx::exp2_approximate(scores[m][n][e] - shift);
              sum += scores[m][n][e];
            }
          total[m][h] = fmaf(total[m][h], factor, sum);
          top[m][h] = highest;
#pragma unroll
          for (int n = 0; n < DV / 8; ++n) {
            sums[m][n][2 * h] *= factor;
            sums[m][n][2 * h + 1] *= factor;
          }
        }
        // What the product has given is laid out as the next product takes it.
#pragma unroll
        for (int n = 0; n < kKeyTile / 16; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) weights[m][n][e] = ptx::pack_bf16(scores[m][2 * n + e / 2][e % 2 * 2], scores[m][2 * n + e / 2][e % 2 * 2 + 1]);
      }
    }
    ptx::cp_async_wait<0>();
    __syncthreads();  // the values have come, and all warps have used the keys
    if (begin + kKeyTile <= all.last) load_keys(begin + kKeyTile);
    if (sees) {
#pragma unroll
      for (int n = 0; n < kKeyTile / 16; ++n)
#pragma unroll
        for (int c = 0; c < DV / 16; ++c) {
          uint32_t right[4];
          ptx::ldmatrix_x4_transposed(right, block_at<DV>(value_at, n, c));
#pragma unroll
          for (int m = 0; m < M; ++m) {
            ptx::mma_bf16(sums[m][2 * c], weights[m][n], right[0], right[1]);
            ptx::mma_bf16(sums[m][2 * c + 1], weights[m][n], right[2], right[3]);
          }
        }
    }
  }

#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = total[m][h];
      sum += __shfl_xor_sync(kFullWarp, sum, 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      const int column = tile.begin + own + m * 16 + h * 8 + lane / 4;
      if (column >= columns) continue;
      const int64_t row = column_row(call, tile, column);
      // + 0 turns a -0 into 0: whether a sum became -0 or 0 may depend on zeros that were added.
      const float share = 1.0f / sum;
#pragma unroll
      for (int n = 0; n < DV / 8; ++n)
        store_pair(out + row * call.value_width, n * 8 + lane % 4 * 2, call.value_width, plan.pairs, fmaf(sums[m][n][2 * h], share, 0.0f),
                   fmaf(sums[m][n][2 * h + 1], share, 0.0f));
      if (log_sum && lane % 4 == 0) log_sum[row] = (top[m][h] + log2f(sum)) * kLn2;
    }
}

}  // namespace

void attention_forward(const DeviceState& state, const AttentionCall& call, const AttentionTensors& t) {
  ForwardPlan plan;
  plan.scale = float(call.scale) * kLog2E;
  plan.access = row_access(call.width, t.q, t.k);
  plan.value_access = row_access(call.value_width, t.v);
  plan.pairs = row_access(call.value_width, t.out) >= 4;
  with_widths(call, [&]<int D, int DV>() {
    constexpr int kTile = kColumnTile<D, DV>;
    launch(state, forward_kernel<D, DV>, attention_grid(call, call.group, kTile), kThreads, tile_bytes<D>(kTile + kKeyTile) + tile_bytes<DV>(kKeyTile), call, plan,
           static_cast<const bf16*>(t.q), static_cast<const bf16*>(t.k), static_cast<const bf16*>(t.v), static_cast<const bf16*>(t.sinks), static_cast<bf16*>(t.out),
           static_cast<float*>(t.log_sum));
  });
}

}  // namespace libmoe::cuda::sm80

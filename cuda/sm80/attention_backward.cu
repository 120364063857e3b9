// Backward attention for bf16 on tensor cores, sums in f32, without atomics: one kernel per side, each output written once by one block that adds in a fixed order.
// With P the weights (computed again from log_sum), G the gradient of the output and S' = P (G V^T - delta) that of the scores:
//   a block that keeps 128 columns walks over their keys:              dQ = scale S' K                     three products
//   a block that keeps 128 keys walks over the columns that see them:  dK = scale S'^T Q,  dV = P^T G       four products
// Floor: 7 products of 2 FLOP per column, visible key and channel (5 would do if blocks added into each other's results); with 128 kept rows a streamed one gives
// 256 FLOP per byte or more: bound by the tensor cores. Both are one kernel: "own" rows are kept in shared memory, tiles of 64 "other" rows stream past.
//
// 8 warps of 16 own rows each. A warp computes 16 x 16J scores and products G V^T at a time and turns them in registers into the left operands of the sums, so
// nothing but the rows themselves goes through shared memory. Budget: 255 registers, of which D / 2 for sums (and DV / 2 more where keys are kept, 192 in all at
// most) and 16 J for scores. Shared memory: own rows and two stages of other rows, 130 KiB at width 128; one stage where two do not fit (145 KiB at width 192).
// The heads of a group are neighbouring columns: their sums run in order.
#include "cuda/sm80/attention_tile.h"

namespace libmoe::cuda::sm80 {
namespace {

constexpr int kThreads = 256, kOwnTile = 128, kOtherTile = 64;

struct BackwardPlan {
  float scale = 1;
  int access = 2, value_access = 2, stages = 1;
  bool pairs = false, value_pairs = false;  // of gradients
};
struct BackwardPointers {
  const bf16 *own, *own_values, *other, *other_values;  // q and d_out, k and v, or the other way round
  const float *log_sum, *delta;
  bf16 *d_own, *d_own_values;
};

// Of the other rows in a stage, when they are columns.
struct Statistics {
  float log_sum[kOtherTile], delta[kOtherTile];  // log_sum to base 2
  int first[kOtherTile], last[kOtherTile];       // keys that it sees
};

template <int D, int DV> constexpr uint32_t kStageBytes = tile_bytes<D>(kOtherTile) + tile_bytes<DV>(kOtherTile) + sizeof(Statistics);
template <int D, int DV> constexpr uint32_t kOwnBytes = tile_bytes<D>(kOwnTile) + tile_bytes<DV>(kOwnTile);
// Blocks of 16 other rows at a time, as many as the registers allow.
template <int D, int DV, bool kKeys> constexpr int kBlocks = D + DV <= 128 ? 4 : kKeys && D + DV > 256 ? 1 : 2;

template <int D, int DV, bool kKeys> __global__ void __launch_bounds__(kThreads, 1) backward_kernel(AttentionCall call, BackwardPlan plan, BackwardPointers t) {
  constexpr int J = kBlocks<D, DV, kKeys>;
  AttentionTile tile;
  if (!find_tile<!kKeys>(call, kKeys ? 1 : call.group, kOwnTile, tile)) return;
  const AttentionSequence& s = tile.sequence;
  const int lane = int(threadIdx.x) % 32, warp_row = int(threadIdx.x) / 32 * 16, own = tile.begin + warp_row;  // first row of this warp
  const int columns = s.queries * call.group, end = kKeys ? s.keys : columns;
  unsigned char* const shared = dynamic_shared<unsigned char>();
  const uint32_t address = ptx::shared_address(shared), own_at = rows_address<D>(address, warp_row, lane),
                 own_values_at = rows_address<DV>(address + tile_bytes<D>(kOwnTile), warp_row, lane);
  const auto statistics_at = [&](int stage) {
    return reinterpret_cast<Statistics*>(shared + kOwnBytes<D, DV> + stage * kStageBytes<D, DV> + tile_bytes<D>(kOtherTile) + tile_bytes<DV>(kOtherTile));
  };
  const auto row_of = [&](int i, bool key) { return key ? key_row(call, tile, i) : column_row(call, tile, i); };

  Columns range;  // of the other side
  if constexpr (kKeys) {
    range = columns_of(call, s, tile.begin, min(tile.begin + kOwnTile, end));
  } else {
    const Sight all = sight_of(call, s, tile.begin, min(tile.begin + kOwnTile, end));
    range = {all.first, all.last};
  }

  const auto sought = [&](int i) { return i >= range.first && i <= range.last; };
  const auto load_others = [&](int begin, int stage) {
    const uint32_t at = kOwnBytes<D, DV> + uint32_t(stage) * kStageBytes<D, DV>;
    load_tile<D, kOtherTile, kThreads>(at, call.width, plan.access, t.other,
                                       [&](int r) -> const bf16* { return sought(begin + r) ? t.other + row_of(begin + r, !kKeys) * call.width : nullptr; });
    load_tile<DV, kOtherTile, kThreads>(at + tile_bytes<D>(kOtherTile), call.value_width, plan.value_access, t.other_values, [&](int r) -> const bf16* {
      return sought(begin + r) ? t.other_values + row_of(begin + r, !kKeys) * call.value_width : nullptr;
    });
    if constexpr (kKeys) {
      if (threadIdx.x < kOtherTile) {
        const int column = begin + int(threadIdx.x);
        const bool real = column < columns;
        const int64_t row = column_row(call, tile, column);
        const Sight sight = sight_of(call, s, column);
        Statistics& to = *statistics_at(stage);
        to.log_sum[threadIdx.x] = real ? t.log_sum[row] * kLog2E : 0;
        to.delta[threadIdx.x] = real ? t.delta[row] : 0;
        to.first[threadIdx.x] = real ? sight.first : 1;
        to.last[threadIdx.x] = real ? sight.last : 0;
      }
    }
    ptx::cp_async_commit();
  };
  load_tile<D, kOwnTile, kThreads>(0, call.width, plan.access, t.own,
                                   [&](int r) -> const bf16* { return tile.begin + r < end ? t.own + row_of(tile.begin + r, kKeys) * call.width : nullptr; });
  load_tile<DV, kOwnTile, kThreads>(tile_bytes<D>(kOwnTile), call.value_width, plan.value_access, t.own_values, [&](int r) -> const bf16* {
    return tile.begin + r < end ? t.own_values + row_of(tile.begin + r, kKeys) * call.value_width : nullptr;
  });
  int begin = range.first / kOtherTile * kOtherTile, stage = 0;
  load_others(begin, 0);

  float sums[D / 8][4], value_sums[kKeys ? DV / 8 : 1][4];
#pragma unroll
  for (int n = 0; n < D / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[n][e] = 0;
  if constexpr (kKeys) {
#pragma unroll
    for (int n = 0; n < DV / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) value_sums[n][e] = 0;
  }
  // What a thread knows of its own two rows, when they are columns.
  float log_sum[2] = {0, 0}, delta[2] = {0, 0};
  Sight sight[2] = {{1, 0}, {1, 0}};
  if constexpr (!kKeys) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int column = own + h * 8 + lane / 4;
      if (column >= columns) continue;
      const int64_t row = column_row(call, tile, column);
      log_sum[h] = t.log_sum[row] * kLog2E;
      delta[h] = t.delta[row];
      sight[h] = sight_of(call, s, column);
    }
  }
  // All that this warp sees or is seen by.
  const bool active = own < end;
  Columns warp_range{0, -1};
  if (active) {
    if constexpr (kKeys) {
      warp_range = columns_of(call, s, own, min(own + 16, end));
    } else {
      const Sight all = sight_of(call, s, own, min(own + 16, end));
      warp_range = {all.first, all.last};
    }
  }
  const float scale = plan.scale * kLog2E;

#pragma unroll 1
  for (; begin <= range.last; begin += kOtherTile) {
    const bool more = begin + kOtherTile <= range.last;
    if (plan.stages == 2) {
      if (more) load_others(begin + kOtherTile, stage ^ 1);
      else ptx::cp_async_commit();
      ptx::cp_async_wait<1>();
    } else {
      ptx::cp_async_wait<0>();
    }
    __syncthreads();  // this stage has come
    const uint32_t stage_at = address + kOwnBytes<D, DV> + uint32_t(stage) * kStageBytes<D, DV>, values = stage_at + tile_bytes<D>(kOtherTile);
    const uint32_t other_at = columns_address<D>(stage_at, 0, lane), other_values_at = columns_address<DV>(values, 0, lane);
    const uint32_t add_at = rows_address<D>(stage_at, 0, lane), add_values_at = rows_address<DV>(values, 0, lane);
#pragma unroll 1
    for (int block = 0; block < kOtherTile / 16; block += J) {
      const int from = begin + block * 16;
      if (from > warp_range.last || from + 16 * J <= warp_range.first) continue;  // nothing but zeros
      float x[2 * J][4], y[2 * J][4];
#pragma unroll
      for (int n = 0; n < 2 * J; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = y[n][e] = 0;
#pragma unroll 2
      for (int step = 0; step < D / 16; ++step) {
        uint32_t left[4], right[4];
        ptx::ldmatrix_x4(left, block_at<D>(own_at, 0, step));
#pragma unroll
        for (int j = 0; j < J; ++j) {
          ptx::ldmatrix_x4(right, block_at<D>(other_at, block + j, step));
          ptx::mma_bf16(x[2 * j], left, right[0], right[1]);
          ptx::mma_bf16(x[2 * j + 1], left, right[2], right[3]);
        }
      }
#pragma unroll 2
      for (int step = 0; step < DV / 16; ++step) {
        uint32_t left[4], right[4];
        ptx::ldmatrix_x4(left, block_at<DV>(own_values_at, 0, step));
#pragma unroll
        for (int j = 0; j < J; ++j) {
          ptx::ldmatrix_x4(right, block_at<DV>(other_values_at, block + j, step));
          ptx::mma_bf16(y[2 * j], left, right[0], right[1]);
          ptx::mma_bf16(y[2 * j + 1], left, right[2], right[3]);
        }
      }
      // x becomes the weights, y the gradients of the scores.
#pragma unroll
      for (int n = 0; n < 2 * J; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int other = block * 16 + n * 8 + lane % 4 * 2 + (e & 1);
          float weight, column_delta;
          bool seen;
          if constexpr (kKeys) {
            const Statistics& of = *statistics_at(stage);
            const int key = own + e / 2 * 8 + lane / 4;
            seen = key >= of.first[other] && key <= of.last[other];
            weight = ptx::exp2_approximate(fmaf(x[n][e], scale, -of.log_sum[other]));
            column_delta = of.delta[other];
          } else {
            seen = sight[e / 2].sees(begin + other);
            weight = ptx::exp2_approximate(fmaf(x[n][e], scale, -log_sum[e / 2]));
            column_delta = delta[e / 2];
          }
          x[n][e] = seen ? weight : 0.0f;
          y[n][e] = seen ? weight * (y[n][e] - column_delta) : 0.0f;
        }
#pragma unroll
      for (int j = 0; j < J; ++j) {
        uint32_t left[4], right[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) left[e] = ptx::pack_bf16(y[2 * j + e / 2][e % 2 * 2], y[2 * j + e / 2][e % 2 * 2 + 1]);
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
          ptx::ldmatrix_x4_transposed(right, block_at<D>(add_at, block + j, c));
          ptx::mma_bf16(sums[2 * c], left, right[0], right[1]);
          ptx::mma_bf16(sums[2 * c + 1], left, right[2], right[3]);
        }
        if constexpr (kKeys) {
#pragma unroll
          for (int e = 0; e < 4; ++e) left[e] = ptx::pack_bf16(x[2 * j + e / 2][e % 2 * 2], x[2 * j + e / 2][e % 2 * 2 + 1]);
#pragma unroll
          for (int c = 0; c < DV / 16; ++c) {
            ptx::ldmatrix_x4_transposed(right, block_at<DV>(add_values_at, block + j, c));
            ptx::mma_bf16(value_sums[2 * c], left, right[0], right[1]);
            ptx::mma_bf16(value_sums[2 * c + 1], left, right[2], right[3]);
          }
        }
      }
    }
    __syncthreads();  // all have used this stage
    if (plan.stages == 2) stage ^= 1;
    else if (more) load_others(begin + kOtherTile, 0);
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int mine = own + h * 8 + lane / 4;
    if (mine >= end) continue;
    const int64_t row = row_of(mine, kKeys);
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      store_pair(t.d_own + row * call.width, n * 8 + lane % 4 * 2, call.width, plan.pairs, sums[n][2 * h] * plan.scale, sums[n][2 * h + 1] * plan.scale);
    if constexpr (kKeys) {
#pragma unroll
      for (int n = 0; n < DV / 8; ++n)
        store_pair(t.d_own_values + row * call.value_width, n * 8 + lane % 4 * 2, call.value_width, plan.value_pairs, value_sums[n][2 * h], value_sums[n][2 * h + 1]);
    }
  }
}

}  // namespace

bool attention_backward(const DeviceState& state, const AttentionCall& call, const AttentionGradients& g) {
  BackwardPlan plan;
  plan.scale = float(call.scale);
  plan.access = row_access(call.width, g.q, g.k);
  plan.value_access = row_access(call.value_width, g.v, g.d_out);
  plan.pairs = row_access(call.width, g.dq, g.dk) >= 4;
  plan.value_pairs = row_access(call.value_width, g.dv) >= 4;
  const auto in = [](const void* p) { return static_cast<const bf16*>(p); };
  const auto out = [](void* p) { return static_cast<bf16*>(p); };
  const auto *log_sum = static_cast<const float*>(g.log_sum), *delta = static_cast<const float*>(g.delta);
  bool done = true;
  with_widths(call, [&]<int D, int DV>() {
    plan.stages = kOwnBytes<D, DV> + 2 * kStageBytes<D, DV> <= state.shared_bytes ? 2 : 1;
    const size_t bytes = kOwnBytes<D, DV> + size_t(plan.stages) * kStageBytes<D, DV>;
    done = bytes <= state.shared_bytes;
    if (!done) return;
    launch(state, backward_kernel<D, DV, false>, attention_grid(call, call.group, kOwnTile), kThreads, bytes, call, plan,
           BackwardPointers{in(g.q), in(g.d_out), in(g.k), in(g.v), log_sum, delta, out(g.dq), nullptr});
    launch(state, backward_kernel<D, DV, true>, attention_grid(call, 1, kOwnTile), kThreads, bytes, call, plan,
           BackwardPointers{in(g.k), in(g.v), in(g.q), in(g.d_out), log_sum, delta, out(g.dk), out(g.dv)});
  });
  return done;
}

}  // namespace libmoe::cuda::sm80

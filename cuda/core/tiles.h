#pragma once
// The work list of a grouped product: the rows of every expert cut into tiles, made on the device from the offsets of a plan (ops/permutation.h), so that the host need
// not know how many rows an expert has. Empty experts have no tile.
#include <algorithm>

#include "cuda/core/runtime.h"
#include "cuda/core/scan.h"

namespace libmoe::cuda {

// `rows` rows from `first` on belong to `expert`; it is the expert's tile number `ordinal`.
struct alignas(16) RowTile {
  int32_t expert, first, rows, ordinal;
};

// Tiles that `slots` rows of `experts` experts may make at most.
inline int64_t tile_bound(int64_t slots, int64_t experts, int64_t tile_rows) { return std::min(slots, slots / tile_rows + experts); }

constexpr int kTileThreads = 256;

// Reads 4 bytes per expert in every block and writes 16 per tile. Each block adds up all experts' tiles; then one thread per tile looks up its expert by bisection.
template <int kThreads> __global__ void __launch_bounds__(kThreads) tiles_kernel(const int32_t* offsets, int experts, int tile_rows, int64_t bound, RowTile* tiles, int32_t* count) {
  int32_t* first = dynamic_shared<int32_t>();  // [experts + 1]: tiles before an expert
  int32_t before = 0;
  for (int begin = 0; begin < experts; begin += kThreads) {
    const int e = begin + int(threadIdx.x);
    const int32_t own = e < experts ? (offsets[e + 1] - offsets[e] + tile_rows - 1) / tile_rows : 0;
    int32_t total;
    const int32_t at = block_exclusive<kThreads>(own, total);
    if (e < experts) first[e] = before + at;
    before += total;
  }
  if (threadIdx.x == 0) first[experts] = before;
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x == 0) *count = before;
  const int64_t tile = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (tile >= bound) return;
  RowTile out{-1, 0, 0, 0};
  if (tile < before) {
    int low = 0, high = experts;  // the last expert with first[e] <= tile has tiles of its own
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first[middle] <= tile) low = middle;
      else high = middle;
    }
    out.expert = low;
    out.ordinal = int32_t(tile) - first[low];
    out.first = offsets[low] + out.ordinal * tile_rows;
    out.rows = min(tile_rows, offsets[low + 1] - out.first);
  }
  tiles[tile] = out;
}

// tiles [tile_bound(slots, experts, tile_rows)]: ordered by expert, then by row; beyond `count` [1] entries with expert -1 and no rows.
inline void build_tiles(const DeviceState& state, const int32_t* offsets, int64_t experts, int64_t slots, int64_t tile_rows, RowTile* tiles, int32_t* count) {
  const int64_t bound = tile_bound(slots, experts, tile_rows);
  launch(state, tiles_kernel<kTileThreads>, unsigned(std::max<int64_t>(1, blocks_for(bound, kTileThreads))), kTileThreads, size_t(experts + 1) * sizeof(int32_t), offsets,
         int(experts), int(tile_rows), bound, tiles, count);
}

}  // namespace libmoe::cuda

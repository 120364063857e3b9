// Gathering of rows and sorting of positions by row; both bound by memory. A gather reads its index once and moves every byte once. The sort has one to four
// passes of eight bits, each of which reads the keys twice and moves 8 bytes a position; tiles go to the blocks and keep their order (a scan over the counts of
// all tiles), warps within a tile take consecutive positions, and a warp ranks 32 of them at a time by a vote: hence it is stable without any atomic whose order
// could show.
#include "cuda/core/row_index.h"

#include <bit>

#include "cuda/core/convert.h"
#include "cuda/core/scan.h"

namespace libmoe::cuda {
namespace {

constexpr int kThreads = 256;

// `across` threads share a row, kThreads / across rows go side by side; grid.y cuts long rows.
template <class Unit>
__global__ void __launch_bounds__(kThreads) gather_kernel(const Unit* x, const int32_t* index, int64_t n, int64_t rows, int64_t units, Unit* y, FaultSlot fault) {
  const int64_t first = int64_t(blockIdx.y) * blockDim.x + threadIdx.x, step = int64_t(gridDim.y) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; i < n; i += int64_t(gridDim.x) * blockDim.y) {
    const int64_t row = index[i];
    if (row < 0 || row >= rows) {
      if (first == 0) fault.report(i);
      continue;
    }
#pragma unroll 4
    for (int64_t u = first; u < units; u += step) y[i * units + u] = x[row * units + u];
  }
}

constexpr int kBins = 256, kWarps = kThreads / 32, kRounds = 16, kTile = kThreads * kRounds;

__device__ inline uint32_t clamped(int32_t key, uint32_t limit) { return min(uint32_t(key), limit); }

// counts[bin, tile]
__global__ void __launch_bounds__(kThreads) count_kernel(const int32_t* keys, int64_t n, uint32_t limit, int shift, int64_t tiles, int32_t* counts, FaultSlot fault) {
  __shared__ int bins[kBins];
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    bins[threadIdx.x] = 0;
    __syncthreads();
    for (int r = 0; r < kRounds; ++r) {
      const int64_t i = tile * kTile + r * kThreads + threadIdx.x;
      if (i >= n) continue;
      const uint32_t key = clamped(keys[i], limit);
      if (key == limit && fault.key) fault.report(i);
      atomicAdd(&bins[key >> shift & (kBins - 1)], 1);
    }
    __syncthreads();
    counts[threadIdx.x * tiles + tile] = bins[threadIdx.x];
    __syncthreads();
  }
}

// counts becomes its exclusive running sum. One block.
template <int kScanThreads> __global__ void __launch_bounds__(kScanThreads) scan_kernel(int32_t* counts, int64_t n) {
  int carry = 0;
  for (int64_t begin = 0; begin < n; begin += kScanThreads) {
    const int64_t i = begin + threadIdx.x;
    int total;
    const int before = block_exclusive<kScanThreads>(i < n ? counts[i] : 0, total);
    if (i < n) counts[i] = carry + before;
    carry += total;
  }
}

// Without `from`, the position of a key is its place in `keys`.
__global__ void __launch_bounds__(kThreads) place_kernel(const int32_t* keys, const int32_t* from, int64_t n, uint32_t limit, int shift, int64_t tiles,
                                                         const int32_t* starts, uint32_t* keys_to, int32_t* to) {
  __shared__ int next[kWarps][kBins];
  const unsigned lane = threadIdx.x & 31u, warp = threadIdx.x >> 5;
  int* mine = next[warp];
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t begin_of_warp = tile * kTile + warp * (kTile / kWarps), first = begin_of_warp + lane;
    const int rounds = int(min(int64_t(kRounds), (n - begin_of_warp + 31) / 32));  // none or fewer past the end
    for (int b = lane; b < kBins; b += 32) mine[b] = 0;
    __syncwarp();
    // Lanes past the end have a bin of their own, which is not counted.
    const auto bin_of = [&](int64_t i) { return i < n ? int(clamped(keys[i], limit) >> shift & (kBins - 1)) : kBins; };
    for (int r = 0; r < rounds; ++r) {
      const int bin = bin_of(first + r * 32);
      const unsigned same = __match_any_sync(kFullWarp, bin);
      if (bin < kBins && __ffs(int(same)) - 1 == int(lane)) mine[bin] += __popc(same);
      __syncwarp();
    }
    __syncthreads();
    int at = starts[threadIdx.x * tiles + tile];
    for (int w = 0; w < kWarps; ++w) {
      const int count = next[w][threadIdx.x];
      next[w][threadIdx.x] = at;
      at += count;
    }
    __syncthreads();
    for (int r = 0; r < rounds; ++r) {
      const int64_t i = first + r * 32;
      const int bin = bin_of(i);
      const unsigned same = __match_any_sync(kFullWarp, bin);
      const int begin = bin < kBins ? mine[bin] : 0;
      __syncwarp();
      if (bin < kBins) {
        const int place = begin + __popc(same & ((1u << lane) - 1u));
        keys_to[place] = clamped(keys[i], limit);
        to[place] = from ? from[i] : int32_t(i);
        if (__ffs(int(same)) - 1 == int(lane)) mine[bin] = begin + __popc(same);
      }
      __syncwarp();
    }
    __syncthreads();
  }
}

constexpr int64_t kTileBytes = int64_t(kBins) * 4;

}  // namespace

void gather_row_bytes(DeviceState& state, const void* x, const int32_t* index, int64_t n, int64_t rows, int64_t row_bytes, void* y, const char* what) {
  const FaultSlot fault = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", what, 0, rows - 1});
  const auto run = [&]<class Unit>() {
    const int64_t units = row_bytes / int64_t(sizeof(Unit));
    const unsigned across = unsigned(std::bit_ceil(uint64_t(std::clamp<int64_t>(units, 1, kThreads)))), down = kThreads / across;
    const dim3 grid(grid_for(state, n, down), unsigned(std::clamp<int64_t>(blocks_for(units, int64_t(across) * 8), 1, 1024)));
    launch(state, gather_kernel<Unit>, grid, dim3(across, down), 0, static_cast<const Unit*>(x), index, n, rows, units, static_cast<Unit*>(y), fault);
  };
  const auto fits = [&](int64_t bytes) { return row_bytes % bytes == 0 && aligned_to(x, size_t(bytes)) && aligned_to(y, size_t(bytes)); };
  if (fits(16)) run.template operator()<uint4>();
  else if (fits(4)) run.template operator()<uint32_t>();
  else if (fits(2)) run.template operator()<uint16_t>();
  else run.template operator()<uint8_t>();
}

SortedPositions::SortedPositions(const DeviceState& state, const int32_t* keys, int64_t n, int64_t limit, FaultSlot fault)
    : scratch_(state, size_t(n * 16 + blocks_for(n, kTile) * kTileBytes)) {
  const int64_t tiles = blocks_for(n, kTile);
  auto* ints = scratch_.as<int32_t>();
  int32_t* counts = ints + 4 * n;
  const int passes = (std::bit_width(uint64_t(limit)) + 7) / 8;  // limit itself is a key too
  const int32_t *keys_from = keys, *from = nullptr;
  for (int pass = 0; pass < std::max(1, passes); ++pass) {
    keys_ = reinterpret_cast<uint32_t*>(ints + (pass & 1) * 2 * n);
    positions_ = ints + (pass & 1) * 2 * n + n;
    const unsigned grid = grid_for(state, tiles, 1, 4);
    launch(state, count_kernel, grid, kThreads, 0, keys_from, n, uint32_t(limit), pass * 8, tiles, counts, pass == 0 ? fault : FaultSlot{});
    if (tiles == 1) launch(state, scan_kernel<kBins>, 1, kBins, 0, counts, int64_t(kBins));
    else launch(state, scan_kernel<1024>, tiles ? 1 : 0, 1024, 0, counts, tiles * kBins);
    launch(state, place_kernel, grid, kThreads, 0, keys_from, from, n, uint32_t(limit), pass * 8, tiles, static_cast<const int32_t*>(counts), keys_, positions_);
    keys_from = reinterpret_cast<const int32_t*>(keys_);
    from = positions_;
  }
}

}  // namespace libmoe::cuda

#pragma once
// Tiles of bf16 rows in shared memory, and the operands that mma takes from them.
#include "cuda/core/attention.h"
#include "cuda/core/block.h"

namespace libmoe::cuda::sm80 {

// Where 16 bytes of a row of D channels lie in its tile. The swizzle puts one chunk of eight neighbouring rows into different banks, as ldmatrix reads them:
// rows of 128 bytes or a multiple begin in the same bank, so the lowest three bits of the chunk turn with the row; rows of 192 bytes begin in two banks in turn.
template <int D> __device__ inline uint32_t chunk_at(int row, int chunk) {
  static_assert(D % 32 == 0 && (D % 64 == 0 || D == 96));
  return uint32_t(row * D * 2 + (D % 64 == 0 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3)) * 16);
}
template <int D> constexpr uint32_t tile_bytes(int rows) { return uint32_t(rows) * D * 2; }

// Addresses of operands: what depends on the lane is computed once per tile, a step of 16 channels or rows is a constant added and at most three bits turned.
// The left operand of 16 rows, and a right one whose k are 16 rows and whose columns are channels (read transposed).
template <int D> __device__ inline uint32_t rows_address(uint32_t tile, int row, int lane) { return tile + chunk_at<D>(row + lane % 16, lane / 16); }
// A right operand whose columns are 16 rows and whose k are channels.
template <int D> __device__ inline uint32_t columns_address(uint32_t tile, int row, int lane) {
  return tile + chunk_at<D>(row + lane / 16 * 8 + lane % 8, lane / 8 % 2);
}
// Row block `rows` and channel block `channels` of 16 each from such an address.
template <int D> __device__ inline uint32_t block_at(uint32_t address, int rows, int channels) {
  constexpr int kTurns = D % 64 == 0 ? 4 : 2;
  return (address ^ uint32_t(channels % kTurns * 32)) + uint32_t(rows * 16 * D * 2 + channels / kTurns * kTurns * 32);
}

// How many bytes of a row may be read at once: 16, 4, or 2 for odd widths and views that begin anywhere.
template <class... P> inline int row_access(int width, const P*... p) {
  if (width % 8 == 0 && (... && aligned_to(p, 16))) return 16;
  return width % 2 == 0 && (... && aligned_to(p, 4)) ? 4 : 2;
}

// Starts the copy of kRows rows into a tile that begins `at` bytes into shared memory, zeros where row_of(r) is null and beyond `width`; eight threads per row, so
// that a place in the block table is looked up once per thread and row. The caller commits and waits.
template <int D, int kRows, int kThreads, class Rows>
__device__ inline void load_tile(uint32_t at, int width, int access, const bf16* valid_address, const Rows& row_of) {
  unsigned char* shared = dynamic_shared<unsigned char>();
  const uint32_t tile = ptx::shared_address(shared) + at;
#pragma unroll 1
  for (int r = int(threadIdx.x) / 8; r < kRows; r += kThreads / 8) {
    const bf16* row = row_of(r);
    if (access == 16) {
#pragma unroll
      for (int c = int(threadIdx.x) % 8; c < D / 8; c += 8) {
        const bool valid = row && c * 8 < width;
        ptx::cp_async_16(tile + chunk_at<D>(r, c), valid ? row + c * 8 : valid_address, valid);
      }
    } else if (access == 4) {
#pragma unroll 1
      for (int p = int(threadIdx.x) % 8; p < D / 2; p += 8) {
        const bool valid = row && p * 2 < width;
        ptx::cp_async_4(tile + chunk_at<D>(r, p / 4) + p % 4 * 4, valid ? row + p * 2 : valid_address, valid);
      }
    } else {
#pragma unroll 1
      for (int d = int(threadIdx.x) % 8; d < D; d += 8)
        *reinterpret_cast<uint16_t*>(shared + at + chunk_at<D>(r, d / 8) + d % 8 * 2) = row && d < width ? row[d].bits : uint16_t(0);
    }
  }
}

// Two neighbouring channels of an output row, `together` where the address is a multiple of 4.
__device__ inline void store_pair(bf16* row, int channel, int width, bool together, float low, float high) {
  const uint32_t pair = ptx::pack_bf16(low, high);
  if (together) {
    if (channel < width) *reinterpret_cast<uint32_t*>(row + channel) = pair;
    return;
  }
  if (channel < width) row[channel].bits = uint16_t(pair);
  if (channel + 1 < width) row[channel + 1].bits = uint16_t(pair >> 16);
}

// body.template operator()<D, DV>() with the smallest of the compiled widths that hold a call's.
template <class F> inline void with_widths(const AttentionCall& call, F&& body) {
  const int widest = call.width > call.value_width ? call.width : call.value_width;
  if (widest <= 64) return body.template operator()<64, 64>();
  if (widest <= 96) return body.template operator()<96, 96>();
  if (widest <= 128) return body.template operator()<128, 128>();
  if (call.value_width <= 128) return body.template operator()<192, 128>();
  return body.template operator()<192, 192>();
}

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

}  // namespace libmoe::cuda::sm80

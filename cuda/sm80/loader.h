#pragma once
// From global to shared memory: a thread copies the same pieces of 16 bytes of a tile at every step of k. Addresses in shared memory are swizzled so that
// neither the copies nor ldmatrix meet in a bank.
#include "cuda/core/product.h"
#include "cuda/core/ptx.h"

namespace libmoe::cuda::sm80 {

constexpr int kStep = 32;  // k per stage

// Byte of piece `piece` (8 k) of a tile stored [row][32 k].
__device__ inline uint32_t by_row_offset(int row, int piece) { return uint32_t(row * 64 + ((piece ^ (row >> 1 & 3)) << 4)); }
// Byte of piece `piece` (8 rows) of a tile stored [32 k][kRows].
template <int kRows> __device__ inline uint32_t by_k_offset(int k, int piece) { return uint32_t(k * kRows * 2 + ((piece ^ (k & 7)) << 4)); }

// kBytes: what addresses and row lengths are multiples of, 16, 8 or (eight loads for each piece) 2. `count`: elements of the piece that there are.
template <int kBytes> __device__ inline void copy_piece(unsigned char* shared, uint32_t base, uint32_t to, const bf16* from, int count) {
  if constexpr (kBytes == 16) {
    ptx::cp_async_16(base + to, from, count > 0);
  } else if constexpr (kBytes == 8) {
    ptx::cp_async_8(base + to, from, count > 0);
    ptx::cp_async_8(base + to + 8, from + 4, count > 4);
  } else {
    uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (j < count) words[j / 2] |= uint32_t(from[j].bits) << (j % 2 * 16);
    *reinterpret_cast<uint4*>(shared + to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <int kRows, int kThreads, bool kByK, int kBytes> struct Loader;

// An operand stored [rows, k].
template <int kRows, int kThreads, int kBytes> struct Loader<kRows, kThreads, false, kBytes> {
  static constexpr int kApart = kThreads / 4, kCopies = (kRows + kApart - 1) / kApart;
  const bf16* from[kCopies];
  uint32_t to;
  unsigned inside;  // a bit per copy

  // stored(r): the row that is the tile's row r, -1 for none.
  template <class F> __device__ void start(const Operand<bf16>& o, int group, int, int, F&& stored) {
    const int row = int(threadIdx.x) / 4, piece = int(threadIdx.x) % 4;
    const bf16* data = o.data + group * o.stride;
    to = by_row_offset(row, piece);
    inside = 0;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int r = row + i * kApart, at = r < kRows ? stored(r) : -1;
      if (at >= 0) inside |= 1u << i;
      from[i] = at < 0 ? o.data : data + (o.index ? o.index[at] : at) * o.ld + piece * 8;
    }
  }
  __device__ void load(unsigned char* shared, uint32_t base, int offset, int k, int k_end) {
    const int count = k_end - k - int(threadIdx.x) % 4 * 8;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (kRows < kApart && int(threadIdx.x) / 4 >= kRows) continue;
      copy_piece<kBytes>(shared, base, uint32_t(offset) + to + uint32_t(i * kApart * 64), from[i] + k, inside >> i & 1u ? count : 0);
    }
  }
};

// An operand stored [k, rows]; k may be gathered, then the index is read one step ahead.
template <int kRows, int kThreads, int kBytes> struct Loader<kRows, kThreads, true, kBytes> {
  static constexpr int kPerRow = kRows / 8, kApart = kThreads / kPerRow, kCopies = kStep / kApart;
  static_assert(kApart % 8 == 0 && kCopies >= 1, "copies of a thread share their swizzle");
  const bf16* data;
  int64_t ld;
  const int32_t* index;
  int32_t next[kCopies];
  uint32_t to;
  int count;

  template <class F> __device__ void start(const Operand<bf16>& o, int group, int k_begin, int k_end, F&& stored) {
    const int piece = int(threadIdx.x) % kPerRow, k = int(threadIdx.x) / kPerRow;
    to = by_k_offset<kRows>(k, piece);
    count = 0;
    const int first = stored(piece * 8);
#pragma unroll
    for (int j = 0; j < 8; ++j) count += stored(piece * 8 + j) >= 0;
    data = o.data + group * o.stride + (count > 0 ? first : 0);
    ld = o.ld;
    index = o.index;
    ahead(k_begin, k_end);
  }
  __device__ void ahead(int k, int k_end) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int at = k + int(threadIdx.x) / kPerRow + i * kApart;
      next[i] = at >= k_end ? -1 : index ? index[at] : at;
    }
  }
  __device__ void load(unsigned char* shared, uint32_t base, int offset, int k, int k_end) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      copy_piece<kBytes>(shared, base, uint32_t(offset) + to + uint32_t(i * kApart * kRows * 2), data + (next[i] < 0 ? 0 : next[i] * ld), next[i] < 0 ? 0 : count);
    ahead(k + kStep, k_end);
  }
};

}  // namespace libmoe::cuda::sm80

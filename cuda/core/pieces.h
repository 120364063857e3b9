#pragma once
// How tokens are cut into pieces whose partial sums are added in a fixed order: 64 tokens of one sequence each. The number of pieces is known on the device alone, so pieces
// are numbered with gaps: sequence s begins at number floor(begin / 64) + s, which leaves room for all of its pieces.
#include "cuda/core/fault.h"
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

constexpr int kTokenPiece = 64;

struct TokenPiece {
  int64_t sequence, begin, end;
};

struct TokenPieces {
  const int32_t* offsets;  // [sequences + 1]; null: one sequence
  int64_t sequences, tokens;

  TokenPieces(const TensorView& view, int64_t t) : offsets(view.as<int32_t>()), sequences(view ? view.elements() - 1 : 1), tokens(t) {}

  // Numbers in use are below it.
  __host__ __device__ int64_t bound() const { return tokens / kTokenPiece + sequences; }

  // Offsets that do not ascend are a fault; what is read stays inside the tensors all the same.
  __device__ int64_t begin_of(int64_t s) const {
    if (!offsets) return s ? tokens : 0;
    const int64_t begin = offsets[s];
    return begin < 0 ? 0 : begin < tokens ? begin : tokens;
  }
  __device__ int64_t first_of(int64_t s) const { return begin_of(s) / kTokenPiece + s; }
  __device__ int64_t count_of(int64_t s) const {
    const int64_t length = begin_of(s + 1) - begin_of(s);
    return length > 0 ? (length + kTokenPiece - 1) / kTokenPiece : 0;
  }
  // begin >= end where the number is not in use.
  __device__ TokenPiece operator[](int64_t number) const {
    int64_t low = 0, high = sequences;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      if (first_of(middle) <= number) low = middle;
      else high = middle;
    }
    const int64_t begin = begin_of(low) + (number - first_of(low)) * kTokenPiece, limit = begin_of(low + 1);
    return {low, begin, begin + kTokenPiece < limit ? begin + kTokenPiece : limit};
  }
  // By all threads of one block.
  __device__ void check(const FaultSlot& fault) const {
    if (!offsets) return;
    for (int64_t s = threadIdx.x; s <= sequences; s += blockDim.x)
      if ((s == 0 && offsets[0] != 0) || (s > 0 && offsets[s] < offsets[s - 1]) || (s == sequences && offsets[s] != tokens)) fault.report(s);
  }
};

// Order of the sums below: 16 warps take every 16th of the addends each, then their sums are added, the first warp's first.
constexpr int kPartialThreads = 512, kPartialWarps = kPartialThreads / 32;

// The sum of value(i) over i < count, one per lane; every warp's lanes get it. All threads of the block take part.
template <class A, class F> __device__ inline A sum_partials(int64_t count, F value) {
  __shared__ A parts[kPartialWarps][32];
  const int lane = int(threadIdx.x & 31u), warp = int(threadIdx.x >> 5);
  A sum = 0;
#pragma unroll 4
  for (int64_t i = warp; i < count; i += kPartialWarps) sum += value(i);
  __syncthreads();
  parts[warp][lane] = sum;
  __syncthreads();
  A total = parts[0][lane];
  for (int w = 1; w < kPartialWarps; ++w) total += parts[w][lane];
  return total;
}

}  // namespace libmoe::cuda

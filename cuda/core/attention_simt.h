#pragma once
// The two products of attention on plain cores, for every dtype and width: a block keeps 16 rows of one side in shared memory and streams 64 rows at a time of
// the other side past them, 32 channels at a time. Thread t works on row t / 8, in scores on the streamed rows t % 8, t % 8 + 8, ..., in sums on the channels
// likewise. Every sum runs in one thread, in one order.
#include "cuda/core/attention.h"
#include "cuda/core/block.h"

namespace libmoe::cuda::simt {

constexpr int kOwn = 16, kStream = 64, kLanes = 8, kThreads = kOwn * kLanes, kChunk = 32, kScores = kStream / kLanes, kWeightStride = kStream + 1;

template <class A> constexpr size_t chunk_bytes() { return sizeof(A) * kStream * (kChunk + 1); }
template <class A> constexpr size_t weight_bytes() { return sizeof(A) * kOwn * kWeightStride; }
__host__ __device__ inline int row_stride(int width) { return width + 1; }  // off the multiples of 32 banks

// rows(r): where row r of the streamed side begins, null for a row that counts as zeros.
template <class A, class Rows> __device__ inline void stage(A* chunk, int begin, int width, const Rows& rows) {
  __syncthreads();  // what was there has been used
  for (int r = int(threadIdx.x) / kChunk; r < kStream; r += kThreads / kChunk) {
    const int d = int(threadIdx.x) % kChunk;
    const auto* row = rows(r);
    chunk[r * (kChunk + 1) + d] = row && begin + d < width ? A(load(row[begin + d])) : A(0);
  }
  __syncthreads();
}

// scores[i] = own row . streamed row of this thread
template <class A, class Rows> __device__ inline void scores_of(A (&scores)[kScores], const A* own, int width, A* chunk, const Rows& rows) {
  const int r = int(threadIdx.x) / kLanes, lane = int(threadIdx.x) % kLanes;
#pragma unroll
  for (int i = 0; i < kScores; ++i) scores[i] = A(0);
  for (int begin = 0; begin < width; begin += kChunk) {
    stage(chunk, begin, width, rows);
    const int count = min(kChunk, width - begin);
    for (int d = 0; d < count; ++d) {
      const A x = own[r * row_stride(width) + begin + d];
#pragma unroll
      for (int i = 0; i < kScores; ++i) scores[i] = fma(x, chunk[(lane + i * kLanes) * (kChunk + 1) + d], scores[i]);
    }
  }
}

// sums = sums * factor + weights streamed rows
template <class A, class Rows> __device__ inline void add_weighted(A* sums, A factor, const A* weights, int width, A* chunk, const Rows& rows) {
  const int r = int(threadIdx.x) / kLanes, lane = int(threadIdx.x) % kLanes;
  for (int begin = 0; begin < width; begin += kChunk) {
    stage(chunk, begin, width, rows);
    for (int c = lane; c < kChunk && begin + c < width; c += kLanes) {
      A& to = sums[r * row_stride(width) + begin + c];
      A sum = to * factor;
      for (int j = 0; j < kStream; ++j) sum = fma(weights[r * kWeightStride + j], chunk[j * (kChunk + 1) + c], sum);
      to = sum;
    }
  }
}

// Copies the rows that this block keeps. The barriers of stage() come before anything is read.
template <class A, class Rows> __device__ inline void keep(A* own, int width, A factor, const Rows& rows) {
  const int r = int(threadIdx.x) / kLanes;
  const auto* row = rows(r);
  for (int d = int(threadIdx.x) % kLanes; d < width; d += kLanes) own[r * row_stride(width) + d] = row ? A(load(row[d])) * factor : A(0);
}
template <class A> __device__ inline void clear(A* own, int width) {
  for (int d = int(threadIdx.x) % kLanes; d < width; d += kLanes) own[int(threadIdx.x) / kLanes * row_stride(width) + d] = A(0);
}

// Over the eight threads of a row; each gets the result.
template <class F, class A> __device__ inline A row_all(A x, F f = {}) {
#pragma unroll
  for (int bits = kLanes / 2; bits > 0; bits >>= 1) x = f(x, __shfl_xor_sync(kFullWarp, x, bits));
  return x;
}

inline void require_shared(const DeviceState& state, size_t bytes, const AttentionCall& call) {
  if (bytes > state.shared_bytes)
    fail("ERR_LIBMOE_UNSUPPORTED", "attention: heads of width " + std::to_string(call.width) + " and value width " + std::to_string(call.value_width) + " need " +
                                       std::to_string(bytes) + " bytes of shared memory, this device gives " + std::to_string(state.shared_bytes) +
                                       "; use narrower heads or the CPU");
}

void forward(const DeviceState& state, Dtype dtype, const AttentionCall& call, const AttentionTensors& t);
void backward(const DeviceState& state, Dtype dtype, const AttentionCall& call, const AttentionGradients& t);

}  // namespace libmoe::cuda::simt

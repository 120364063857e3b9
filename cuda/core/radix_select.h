#pragma once
// Which of a block's items are the smallest: 8 bits of the keys a pass, from the highest, so the work is that of reading the keys once per pass and does not depend on how
// many are wanted. Counters are integers, so the order of threads cannot show.
#include "cuda/core/scan.h"

namespace libmoe::cuda {

constexpr int kSelectThreads = 512;

// Items with a smaller key than this are in, those with this key up to position `last`.
template <class K> struct Selected {
  K key;
  int64_t last;
};

// The `keep` smallest of `count` keys of at most `bits` bits, ties to the lower position; 1 <= keep <= count. key_at(i) gives a key. By all threads of a block of kSelectThreads.
template <class K, class F> __device__ Selected<K> radix_select(int64_t count, int64_t keep, int bits, F key_at) {
  __shared__ int histogram[256];
  __shared__ int digit;
  __shared__ int64_t rest, equals;
  K prefix = 0;
  int64_t wanted = keep, same = count;
  for (int shift = (bits + 7) / 8 * 8 - 8; shift >= 0; shift -= 8) {
    __syncthreads();
    if (threadIdx.x < 256) histogram[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < count; i += kSelectThreads) {
      const K key = key_at(i) >> shift;
      if (key >> 8 == prefix) atomicAdd(&histogram[int(key & 255)], 1);
    }
    __syncthreads();
    const int own = threadIdx.x < 256 ? histogram[threadIdx.x] : 0;
    int all;
    const int before = block_exclusive<kSelectThreads>(own, all);
    if (before < wanted && wanted <= before + own) {
      digit = int(threadIdx.x);
      rest = wanted - before;
      equals = own;
    }
    __syncthreads();
    prefix = prefix << 8 | K(digit);
    wanted = rest;
    same = equals;
  }
  if (same == wanted) return {prefix, count};
  // Of the items with this key only some: every thread counts those of a span of its own.
  const int64_t span = (count + kSelectThreads - 1) / kSelectThreads, begin = span * threadIdx.x, end = begin + span < count ? begin + span : count;
  int own = 0, all;
  for (int64_t i = begin; i < end; ++i) own += key_at(i) == prefix;
  const int before = block_exclusive<kSelectThreads>(own, all);
  if (before < wanted && wanted <= before + own) {
    int64_t i = begin;
    for (int64_t seen = before + (key_at(i) == prefix); seen < wanted; seen += key_at(i) == prefix) ++i;
    rest = i;
  }
  __syncthreads();
  return {prefix, rest};
}

}  // namespace libmoe::cuda

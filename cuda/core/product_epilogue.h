#pragma once
// What becomes of a tile of sums: stored, activated, or turned into the gradients of the pre-activation. All threads of the block (or of a warp) call `finish` with the
// tile staged in shared memory; each takes eight neighbouring columns at a time, so that memory is touched 16 bytes at a time.
#include "cuda/core/block.h"
#include "cuda/core/expert_activation.h"
#include "cuda/core/product.h"
#include "cuda/core/tensor_core.h"

namespace libmoe::cuda {

// c = sums (+ bias) (+ c).
template <class T> struct StoreEpilogue {
  using A = Accumulator<T>;
  void* c;
  int64_t ld, stride;         // of c: from row to row, from product to product
  const T* bias;              // [n] per product, or null
  int64_t bias_stride;
  int n;
  bool wide, accumulate, whole;

  template <class C> __device__ void one(C* to, const T* b, int count, A (&v)[8]) const {
    A more[8];
    if (b) {
      load_eight(b, count, whole, more);
#pragma unroll
      for (int j = 0; j < 8; ++j) v[j] += more[j];
    }
    if (accumulate) {
      load_eight(static_cast<const C*>(to), count, whole, more);
#pragma unroll
      for (int j = 0; j < 8; ++j) v[j] += more[j];
    }
    store_eight(to, count, whole, v);
  }
  template <int M, int N, int kThreads> __device__ void finish(const Tile& t, const Staged<A, N>& sums, int thread = int(threadIdx.x)) const {
    const T* b = bias ? bias + t.group * bias_stride : nullptr;
#pragma unroll 2
    for (int i = thread; i < M * (N / 8); i += kThreads) {
      const int row = i / (N / 8), chunk = i % (N / 8), column = t.n + chunk * 8, count = n - column;
      if (row >= t.rows || count <= 0) continue;
      A v[8];
      sums.read(row, chunk, v);
      const int64_t to = t.group * stride + (t.m + row) * ld + column;
      if (std::is_same_v<T, bf16> && wide) one(static_cast<float*>(c) + to, b ? b + column : nullptr, count, v);
      else one(static_cast<T*>(c) + to, b ? b + column : nullptr, count, v);
    }
  }
  // Nothing to do for a product without inner size when adding to what is there.
  __device__ bool skips(const Tile& t) const { return accumulate && !bias && t.k_end <= t.k_begin; }
};

// A gated tile's left half of columns are gate rows, its right half the up rows that belong to them.
template <class T> struct UpEpilogue {
  using A = Accumulator<T>;
  const T* bias;              // [E, full] or null
  T *z, *hidden;
  int width, full;
  bool gated, whole;
  Activation activation;

  template <int M, int N, int kThreads> __device__ void finish(const Tile& t, const Staged<A, N>& sums, int thread = int(threadIdx.x)) const {
    const T* b = bias ? bias + int64_t(t.group) * full : nullptr;
    const int per_row = gated ? N / 16 : N / 8;
    for (int i = thread; i < M * per_row; i += kThreads) {
      const int row = i / per_row, chunk = i % per_row, column = t.n + chunk * 8, count = width - column;
      if (row >= t.rows || count <= 0) continue;
      const int64_t at = t.m + row;
      A v[8], up[8];
      sums.read(row, chunk, v);
      if (gated) sums.read(row, chunk + N / 16, up);
      if (b) {
        A more[8];
        load_eight(b + column, count, whole, more);
#pragma unroll
        for (int j = 0; j < 8; ++j) v[j] += more[j];
        if (gated) {
          load_eight(b + width + column, count, whole, more);
#pragma unroll
          for (int j = 0; j < 8; ++j) up[j] += more[j];
        }
      }
      if (z) {
        store_eight(z + at * full + column, count, whole, v);
        if (gated) store_eight(z + at * full + width + column, count, whole, up);
      }
      if (!hidden) continue;
      with_activation(activation, [&]<Activation F>() {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          v[j] = activate<F, std::is_same_v<T, bf16>>(v[j]);
          if (gated) v[j] *= up_factor<F>(up[j]);
        }
      });
      store_eight(hidden + at * width + column, count, whole, v);
    }
  }
  __device__ bool skips(const Tile&) const { return false; }
};

// The sums are g = dOut down.
template <class T> struct SlopeEpilogue {
  using A = Accumulator<T>;
  const T* z;
  T *dz, *weighted;
  A* parts;
  const A* weight;            // of each row
  int64_t slots;
  int width, full;
  bool gated, whole;
  Activation activation;

  template <int M, int N, int kThreads> __device__ void finish(const Tile& t, const Staged<A, N>& sums, int thread = int(threadIdx.x)) const {
    static_assert(N == kSlopeColumns && (N / 8) == 16 && M * 16 % kThreads == 0, "sixteen neighbouring lanes share a row");
#pragma unroll 1
    for (int i = thread; i < M * (N / 8); i += kThreads) {
      const int row = i / (N / 8), chunk = i % (N / 8), column = t.n + chunk * 8, count = width - column;
      const bool inside = row < t.rows && count > 0;
      const int64_t at = t.m + row;
      A product = 0;
      if (inside) {
        A g[8], gate[8], up[8];
        sums.read(row, chunk, g);
        load_eight(z + at * full + column, count, whole, gate);
        if (gated) load_eight(z + at * full + width + column, count, whole, up);
        const A w = weight[at];
        with_activation(activation, [&]<Activation F>() {
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            A a = activate<F, std::is_same_v<T, bf16>>(gate[j]), d = w * g[j];
            if (gated) {
              const A factor = up_factor<F>(up[j]);
              up[j] = up_slope<F>(up[j], d * a);
              d *= factor;
              a *= factor;
            }
            if (j < count) product = fma(g[j], a, product);
            g[j] = w * a;
            gate[j] = d * slope<F, std::is_same_v<T, bf16>>(gate[j]);
          }
        });
        store_eight(dz + at * full + column, count, whole, gate);
        if (gated) store_eight(dz + at * full + width + column, count, whole, up);
        store_eight(weighted + at * width + column, count, whole, g);
      }
#pragma unroll
      for (int bits = 8; bits > 0; bits >>= 1) product += __shfl_xor_sync(kFullWarp, product, bits);
      if (inside && chunk == 0) parts[t.n / N * slots + at] = product;
    }
  }
  __device__ bool skips(const Tile&) const { return false; }
};

}  // namespace libmoe::cuda

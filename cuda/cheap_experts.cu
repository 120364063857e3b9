// Experts without products, a warp per token. Bound by memory: forward reads the tokens and writes as much, 2 T d sizeof(T) bytes; backward reads tokens and gradients and
// writes the tokens' gradients, 3 T d sizeof(T), and reads the gradients once more for those of the vectors, which are summed over pieces of 64 tokens, those in order.
// The vectors themselves (c d numbers) stay in the caches.
#include "ops/grouped_ffn.h"

#include <algorithm>
#include <string>

#include "core/dispatch.h"
#include "cuda/core/activation.h"
#include "cuda/core/block.h"
#include "cuda/core/convert.h"
#include "cuda/core/pieces.h"
#include "cuda/core/row_sums.h"

namespace libmoe::cuda {

void cheap(const CheapExperts& e, const TensorView& out);
void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors);

namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

// What one choice gives: share of the token, and of the vector of a constant expert (index -1: none).
template <class A> struct Share {
  int constant = -1;
  A token = 0, vector = 0;
};

template <class A> struct Choices {
  const int32_t* choices;
  const A *weights, *mix, *vectors;
  int64_t tokens, width, k, first, copies, constants;

  __device__ Share<A> share(int64_t t, int64_t j) const {
    const int64_t output = choices[t * k + j], at = output - first;
    if (output < 0 || at < 0 || at >= copies + constants) return {};
    if (at < copies) return {-1, A(1), A(0)};
    const A* m = mix + t * 2 * constants + 2 * (at - copies);
    const A s = sigmoid(m[0] - m[1]);
    return {int(at - copies), s, A(1) - s};
  }
};

template <class A> Choices<A> choices_of(const CheapExperts& e) {
  return {e.choices.as<int32_t>(),  e.weights.as<A>(), e.mix.as<A>(), e.vectors.as<A>(), e.x.shape[0], e.x.shape[1], e.choices.shape[1], e.first, e.copies,
          e.vectors ? e.vectors.shape[0] : 0};
}

// The shares of a token's choices in shared memory, [k] per warp; returns what all of them give of the token itself.
template <class A> __device__ A load_shares(const Choices<A>& e, int64_t t, A* factors, int* constants) {
  __syncwarp();
  for (int64_t j = threadIdx.x & 31u; j < e.k; j += 32) {
    const Share<A> share = e.share(t, j);
    const A w = e.weights[t * e.k + j];
    factors[j] = w * share.vector;
    constants[j] = share.constant;
    factors[e.k + j] = w * share.token;
  }
  __syncwarp();
  A of_token = 0;
  for (int64_t j = 0; j < e.k; ++j) of_token += factors[e.k + j];
  return of_token;
}

// f(first element) for packs of N elements by the lanes of the warp, then f_one(element) for the rest.
template <int N, class F, class G> __device__ inline void walk(int64_t width, bool packed, F f, G f_one) {
  const int64_t lane = threadIdx.x & 31u, whole = packed ? width / N : 0;
  for (int64_t p = lane; p < whole; p += 32) f(p * N);
  for (int64_t i = whole * N + lane; i < width; i += 32) f_one(i);
}

template <class T> __global__ void __launch_bounds__(kThreads) forward_kernel(Choices<Accumulator<T>> e, const T* x, T* out, bool packed) {
  using A = Accumulator<T>;
  constexpr int N = kPack<T>;
  const int warps = int(blockDim.x >> 5), warp = int(threadIdx.x >> 5);
  A* factors = dynamic_shared<A>() + warp * 2 * e.k;
  int* constants = reinterpret_cast<int*>(dynamic_shared<A>() + warps * 2 * e.k) + warp * e.k;
  for (int64_t t = int64_t(blockIdx.x) * warps + warp; t < e.tokens; t += int64_t(gridDim.x) * warps) {
    const A of_token = load_shares(e, t, factors, constants);
    const auto one = [&](int64_t i, A own) {
      A sum = 0;
#pragma unroll 1
      for (int64_t j = 0; j < e.k; ++j)
        if (constants[j] >= 0) sum = fma(factors[j], e.vectors[constants[j] * e.width + i], sum);
      return store<T>(fma(of_token, own, sum));
    };
    walk<N>(
        e.width, packed,
        [&](int64_t i) {
          const Pack<T, N> in = *reinterpret_cast<const Pack<T, N>*>(x + t * e.width + i);
          Pack<T, N> y;
#pragma unroll
          for (int n = 0; n < N; ++n) y.at[n] = one(i + n, load(in.at[n]));
          *reinterpret_cast<Pack<T, N>*>(out + t * e.width + i) = y;
        },
        [&](int64_t i) { out[t * e.width + i] = one(i, load(x[t * e.width + i])); });
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
backward_kernel(Choices<Accumulator<T>> e, const T* x, const T* d_out, T* dx, Accumulator<T>* dweights, Accumulator<T>* dmix, bool packed) {
  using A = Accumulator<T>;
  constexpr int N = kPack<T>;
  const int warps = int(blockDim.x >> 5), warp = int(threadIdx.x >> 5), lane = int(threadIdx.x & 31u);
  A* factors = dynamic_shared<A>() + warp * 2 * e.k;
  int* constants = reinterpret_cast<int*>(dynamic_shared<A>() + warps * 2 * e.k) + warp * e.k;
  for (int64_t t = int64_t(blockIdx.x) * warps + warp; t < e.tokens; t += int64_t(gridDim.x) * warps) {
    const A of_token = load_shares(e, t, factors, constants);
    const T *own = x + t * e.width, *g = d_out + t * e.width;
    A with_token = 0;
    walk<N>(
        e.width, packed,
        [&](int64_t i) {
          const Pack<T, N> a = *reinterpret_cast<const Pack<T, N>*>(own + i), b = *reinterpret_cast<const Pack<T, N>*>(g + i);
          Pack<T, N> y;
#pragma unroll
          for (int n = 0; n < N; ++n) {
            with_token = fma(load(a.at[n]), load(b.at[n]), with_token);
            y.at[n] = store<T>(of_token * load(b.at[n]));
          }
          *reinterpret_cast<Pack<T, N>*>(dx + t * e.width + i) = y;
        },
        [&](int64_t i) {
          with_token = fma(load(own[i]), load(g[i]), with_token);
          dx[t * e.width + i] = store<T>(of_token * load(g[i]));
        });
    with_token = warp_all<Sum>(with_token);
    for (int64_t i = lane; i < 2 * e.constants; i += 32) dmix[t * 2 * e.constants + i] = A(0);
    __syncwarp();
    for (int64_t j = 0; j < e.k; ++j) {
      const Share<A> share = e.share(t, j);
      A dw = share.token * with_token;
      if (share.constant >= 0) {
        A with_vector = 0;
        const A* v = e.vectors + share.constant * e.width;
        for (int64_t i = lane; i < e.width; i += 32) with_vector = fma(load(g[i]), v[i], with_vector);
        with_vector = warp_all<Sum>(with_vector);
        dw += share.vector * with_vector;
        const A slope = e.weights[t * e.k + j] * (with_token - with_vector) * share.token * share.vector;
        if (lane == 0) {
          A* m = dmix + t * 2 * e.constants + 2 * share.constant;
          m[0] += slope;
          m[1] -= slope;
        }
      }
      if (lane == 0) dweights[t * e.k + j] = dw;
    }
  }
}

// partial[piece, c, i] = sum over a piece's tokens of what constant c had of the token times its gradient: grid (columns / kThreads, constants, pieces).
template <class T> __global__ void __launch_bounds__(kThreads) vectors_kernel(Choices<Accumulator<T>> e, const T* d_out, int64_t pieces, Accumulator<T>* partial) {
  using A = Accumulator<T>;
  __shared__ A factors[kTokenPiece];
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t piece = blockIdx.z; piece < pieces; piece += gridDim.z)
    for (int64_t c = blockIdx.y; c < e.constants; c += gridDim.y) {
      const int64_t begin = piece * kTokenPiece;
      __syncthreads();
      if (threadIdx.x < kTokenPiece) {
        A sum = 0;
        const int64_t t = begin + threadIdx.x;
        for (int64_t j = 0; j < e.k && t < e.tokens; ++j)
          if (e.choices[t * e.k + j] == e.first + e.copies + c) sum += e.weights[t * e.k + j] * e.share(t, j).vector;
        factors[threadIdx.x] = sum;
      }
      __syncthreads();
      if (i >= e.width) continue;
      A sum = 0;
      for (int t = 0; t < kTokenPiece && begin + t < e.tokens; ++t)
        if (factors[t] != A(0)) sum = fma(factors[t], load(d_out[(begin + t) * e.width + i]), sum);
      partial[(piece * e.constants + c) * e.width + i] = sum;
    }
}

// Warps of a block, so that the shares of their tokens fit into shared memory.
template <class A> int warps_for(const DeviceState& state, int64_t k) {
  int warps = kWarps;
  while (warps > 1 && size_t(warps * k) * (2 * sizeof(A) + 4) > 48 * 1024) warps /= 2;
  if (size_t(warps * k) * (2 * sizeof(A) + 4) > state.shared_bytes) fail("ERR_LIBMOE_UNSUPPORTED", "a token may have at most " + std::to_string(state.shared_bytes / (2 * sizeof(A) + 4)) + " choices");
  return warps;
}

}  // namespace

void cheap(const CheapExperts& e, const TensorView& out) {
  const DeviceState& state = state_of(out.device);
  with_float(e.x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Choices<A> c = choices_of<A>(e);
    const int warps = warps_for<A>(state, c.k);
    const bool packed = c.width % kPack<T> == 0 && aligned_to(e.x.data, 16) && aligned_to(out.data, 16);
    launch(state, forward_kernel<T>, grid_for(state, c.tokens, warps, 32), unsigned(warps * 32), size_t(warps * c.k) * (2 * sizeof(A) + 4), c, static_cast<const T*>(e.x.as<T>()), out.as<T>(),
           packed);
  });
}

void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors) {
  const DeviceState& state = state_of(dx.device);
  with_float(e.x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Choices<A> c = choices_of<A>(e);
    const int warps = warps_for<A>(state, c.k);
    const bool packed = c.width % kPack<T> == 0 && aligned_to(e.x.data, 16) && aligned_to(d_out.data, 16) && aligned_to(dx.data, 16);
    launch(state, backward_kernel<T>, grid_for(state, c.tokens, warps, 32), unsigned(warps * 32), size_t(warps * c.k) * (2 * sizeof(A) + 4), c, static_cast<const T*>(e.x.as<T>()),
           static_cast<const T*>(d_out.as<T>()), dx.as<T>(), dweights.as<A>(), dmix.as<A>(), packed);
    if (!c.constants) return;
    const int64_t pieces = blocks_for(c.tokens, kTokenPiece), size = c.constants * c.width;
    const Scratch partial(state, size_t(pieces * size) * sizeof(A));
    launch(state, vectors_kernel<T>, dim3(unsigned(blocks_for(c.width, kThreads)), unsigned(std::min<int64_t>(c.constants, 65535)), unsigned(std::min<int64_t>(pieces, 65535))), kThreads, 0, c,
           static_cast<const T*>(d_out.as<T>()), pieces, partial.as<A>());
    sum_columns<A>(state, partial.as<A>(), pieces, size, dvectors.as<A>(), false);
  });
}

}  // namespace libmoe::cuda

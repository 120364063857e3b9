// Experts without products. Bound by memory: forward reads the tokens and writes as much, backward reads tokens and gradients and writes the tokens' gradients.
// A block per token, or per piece of 64 tokens where the gradients of the constant vectors are summed: piece by piece, pieces in order.
#include "cuda/core/activation.h"
#include "cuda/core/block.h"
#include "cuda/core/dispatch.h"
#include "cuda/core/row_sums.h"
#include "ops/grouped_ffn.h"

namespace libmoe::cuda {

void cheap(const CheapExperts& e, const TensorView& out);
void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors);

namespace {

constexpr int kThreads = 128, kPiece = 64;

template <class T> struct Cheap {
  using A = Accumulator<T>;
  const T* x;
  const int32_t* choices;
  const A *weights, *mix, *vectors;
  int64_t tokens, width, first, copies, constants;
  int top_k;
};

// What one choice gives: share of the token, and of the vector of a constant expert (index -1: none).
template <class A> struct Share {
  int constant;
  A token, vector;
};
template <class T> __device__ inline Share<Accumulator<T>> share_of(const Cheap<T>& e, int64_t t, int j) {
  using A = Accumulator<T>;
  const int64_t output = e.choices[t * e.top_k + j], at = output - e.first;
  if (output < 0 || at < 0 || at >= e.copies + e.constants) return {-1, A(0), A(0)};
  if (at < e.copies) return {-1, A(1), A(0)};
  const A* mix = e.mix + t * 2 * e.constants + 2 * (at - e.copies);
  const A s = sigmoid(mix[0] - mix[1]);
  return {int(at - e.copies), s, A(1) - s};
}

template <class T> __global__ void __launch_bounds__(kThreads) cheap_kernel(Cheap<T> e, T* out) {
  using A = Accumulator<T>;
  auto* shares = dynamic_shared<Share<A>>();  // times the gate weight
  for (int64_t t = blockIdx.x; t < e.tokens; t += gridDim.x) {
    for (int j = int(threadIdx.x); j < e.top_k; j += kThreads) {
      Share<A> s = share_of(e, t, j);
      const A w = e.weights[t * e.top_k + j];
      s.token *= w;
      s.vector *= w;
      shares[j] = s;
    }
    __syncthreads();
    A of_token = 0;
    for (int j = 0; j < e.top_k; ++j) of_token += shares[j].token;
    for (int64_t i = threadIdx.x; i < e.width; i += kThreads) {
      A sum = 0;
      for (int j = 0; j < e.top_k; ++j)
        if (shares[j].constant >= 0) sum = fma(shares[j].vector, e.vectors[shares[j].constant * e.width + i], sum);
      out[t * e.width + i] = store<T>(fma(of_token, load(e.x[t * e.width + i]), sum));
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) cheap_backward_kernel(Cheap<T> e, const T* d_out, T* dx, Accumulator<T>* dweights, Accumulator<T>* dmix, Accumulator<T>* partial) {
  using A = Accumulator<T>;
  const int64_t size = e.constants * e.width, pieces = (e.tokens + kPiece - 1) / kPiece;
  for (int64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    A* sums = partial + piece * size;
    for (int64_t c = 0; c < e.constants; ++c)
      for (int64_t i = threadIdx.x; i < e.width; i += kThreads) sums[c * e.width + i] = A(0);
    for (int64_t t = piece * kPiece; t < min(e.tokens, (piece + 1) * kPiece); ++t) {
      const T *x = e.x + t * e.width, *g = d_out + t * e.width;
      A *dw = dweights + t * e.top_k, *dm = dmix + t * 2 * e.constants;
      if (threadIdx.x == 0)
        for (int64_t c = 0; c < 2 * e.constants; ++c) dm[c] = A(0);
      const auto dot = [&](const auto* y) {
        A sum = 0;
        for (int64_t i = threadIdx.x; i < e.width; i += kThreads) sum = fma(load(g[i]), load(y[i]), sum);
        return block_all<kThreads, Sum>(sum);
      };
      A of_token = 0, with_token = 0;
      bool any = false;
      for (int j = 0; j < e.top_k; ++j) {
        const Share<A> share = share_of(e, t, j);
        A slope_of_weight = 0;
        if (share.token != A(0) || share.vector != A(0)) {
          if (!any) with_token = dot(x);
          any = true;
          const A w = e.weights[t * e.top_k + j];
          of_token += w * share.token;
          slope_of_weight = share.token * with_token;
          if (share.constant >= 0) {
            const A with_vector = dot(e.vectors + share.constant * e.width), slope = w * (with_token - with_vector) * share.token * share.vector, b = w * share.vector;
            slope_of_weight += share.vector * with_vector;
            if (threadIdx.x == 0) {
              dm[2 * share.constant] += slope;
              dm[2 * share.constant + 1] -= slope;
            }
            for (int64_t i = threadIdx.x; i < e.width; i += kThreads) sums[share.constant * e.width + i] = fma(b, load(g[i]), sums[share.constant * e.width + i]);
          }
        }
        if (threadIdx.x == 0) dw[j] = slope_of_weight;
      }
      for (int64_t i = threadIdx.x; i < e.width; i += kThreads) dx[t * e.width + i] = store<T>(of_token * load(g[i]));
    }
  }
}

template <class T> Cheap<T> on_device(const CheapExperts& e) {
  using A = Accumulator<T>;
  return {e.x.as<const T>(), e.choices.as<const int32_t>(), e.weights.as<const A>(), e.mix.as<const A>(), e.vectors.as<const A>(), e.x.shape[0], e.x.shape[1], e.first, e.copies,
          e.vectors ? e.vectors.shape[0] : 0, int(e.choices.shape[1])};
}

}  // namespace

void cheap(const CheapExperts& e, const TensorView& out) {
  const DeviceState& state = state_of(out.device);
  with_float(e.x.dtype, [&]<class T>() {
    const Cheap<T> c = on_device<T>(e);
    launch(state, cheap_kernel<T>, grid_for(state, c.tokens, 1), kThreads, size_t(c.top_k) * sizeof(Share<Accumulator<T>>), c, out.as<T>());
  });
}

void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors) {
  const DeviceState& state = state_of(dx.device);
  with_float(e.x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Cheap<T> c = on_device<T>(e);
    const int64_t pieces = blocks_for(c.tokens, kPiece), size = c.constants * c.width;
    const Scratch partial(state, size_t(pieces * size) * sizeof(A));
    launch(state, cheap_backward_kernel<T>, grid_for(state, c.tokens, kPiece), kThreads, 0, c, d_out.as<const T>(), dx.as<T>(), dweights.as<A>(), dmix.as<A>(), partial.as<A>());
    if (size) sum_columns<A>(state, partial.as<A>(), pieces, size, dvectors.as<A>(), false);
  });
}

}  // namespace libmoe::cuda

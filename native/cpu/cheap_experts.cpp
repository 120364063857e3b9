// Experts without products. Bound by memory: forward reads the tokens and writes as much, backward reads tokens and gradients and writes the
// tokens' gradients. Pieces of tokens go to the threads; the vectors' gradients of the pieces are added in order.
#include <algorithm>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/pooled.h"
#include "cpu/simd/row.h"
#include "ops/grouped_ffn.h"

namespace libmoe::cpu::LIBMOE_ISA {

void cheap(const CheapExperts& e, const TensorView& out);
void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors);

namespace {

constexpr int64_t kPiece = 64;

// What one choice gives: share of the token, and of the vector of a constant expert (index -1: none).
template <class A> struct Share {
  int64_t constant = -1;
  A token = 0, vector = 0;
};

template <class A> Share<A> share_of(const CheapExperts& e, int64_t t, int64_t output) {
  const int64_t at = output - e.first, constants = e.vectors ? e.vectors.shape[0] : 0;
  if (output < 0 || at < 0 || at >= e.copies + constants) return {};
  if (at < e.copies) return {-1, A(1), A(0)};
  const A* mix = e.mix.as<A>() + t * 2 * constants + 2 * (at - e.copies);
  const A s = sigmoid(Vec<A>(mix[0] - mix[1])).v[0];
  return {at - e.copies, s, A(1) - s};
}

}  // namespace

void cheap(const CheapExperts& e, const TensorView& out) {
  with_float(e.x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t tokens = e.x.shape[0], width = e.x.shape[1], k = e.choices.shape[1];
    parallel_ranges(tokens, kPiece, [&](int64_t begin, int64_t end) {
      A* row = scratch_of<A>(3, width);
      for (int64_t t = begin; t < end; ++t) {
        const T* x = e.x.as<T>() + t * width;
        A of_token = 0;
        std::fill(row, row + width, A(0));
        for (int64_t j = 0; j < k; ++j) {
          const Share<A> share = share_of<A>(e, t, e.choices.as<int32_t>()[t * k + j]);
          const A w = e.weights.as<A>()[t * k + j];
          of_token += w * share.token;
          if (share.constant < 0) continue;
          const A* v = e.vectors.as<A>() + share.constant * width;
          const Vec<A> b(w * share.vector);
          for_vectors<A>(width, [&](int64_t i, int count) { store_count(row + i, fma(b, load_count(v + i, count), load_count(row + i, count)), count); });
        }
        const Vec<A> a(of_token);
        T* to = out.as<T>() + t * width;
        for_vectors<A>(width, [&](int64_t i, int count) { store_count(to + i, fma(a, load_count(x + i, count), load_count(row + i, count)), count); });
      }
    });
  });
}

void cheap_backward(const CheapExperts& e, const TensorView& d_out, const TensorView& dx, const TensorView& dweights, const TensorView& dmix, const TensorView& dvectors) {
  with_float(e.x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t tokens = e.x.shape[0], width = e.x.shape[1], k = e.choices.shape[1], pieces = (tokens + kPiece - 1) / kPiece;
    const int64_t constants = e.vectors ? e.vectors.shape[0] : 0, size = constants * width;
    Pooled<A> partial(pieces * size);
    parallel_ranges(tokens, kPiece, [&](int64_t begin, int64_t end) {
      A* sums = partial.get() + begin / kPiece * size;
      std::fill(sums, sums + size, A(0));
      for (int64_t t = begin; t < end; ++t) {
        const T *x = e.x.as<T>() + t * width, *g = d_out.as<T>() + t * width;
        A *dw = dweights.as<A>() + t * k, *dm = constants ? dmix.as<A>() + t * 2 * constants : nullptr;
        if (dm) std::fill(dm, dm + 2 * constants, A(0));
        const auto dot = [&](const auto* y) { return row_sum<A>(width, [&](int64_t i, int count) { return load_count(g + i, count) * load_count(y + i, count); }); };
        A of_token = 0, with_token = 0;
        bool any = false;
        for (int64_t j = 0; j < k; ++j) {
          const Share<A> share = share_of<A>(e, t, e.choices.as<int32_t>()[t * k + j]);
          dw[j] = 0;
          if (share.token == 0 && share.vector == 0) continue;
          if (!any) with_token = dot(x);
          any = true;
          const A w = e.weights.as<A>()[t * k + j];
          of_token += w * share.token;
          dw[j] = share.token * with_token;
          if (share.constant < 0) continue;
          const A with_vector = dot(e.vectors.as<A>() + share.constant * width), slope = w * (with_token - with_vector) * share.token * share.vector;
          dw[j] += share.vector * with_vector;
          dm[2 * share.constant] += slope;
          dm[2 * share.constant + 1] -= slope;
          A* sum = sums + share.constant * width;
          const Vec<A> b(w * share.vector);
          for_vectors<A>(width, [&](int64_t i, int count) { store_count(sum + i, fma(b, load_count(g + i, count), load_count(sum + i, count)), count); });
        }
        const Vec<A> a(of_token);
        T* to = dx.as<T>() + t * width;
        for_vectors<A>(width, [&](int64_t i, int count) { store_count(to + i, a * load_count(g + i, count), count); });
      }
    });
    if (!constants) return;
    A* total = dvectors.as<A>();
    std::fill(total, total + size, A(0));
    for (int64_t piece = 0; piece < pieces; ++piece)
      for (int64_t i = 0; i < size; ++i) total[i] += partial.get()[piece * size + i];
  });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

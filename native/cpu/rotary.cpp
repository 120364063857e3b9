// Bound by memory: x is read and y written once; the table row of a token serves all its heads. Tokens go to the threads.
#include "ops/rotary.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

template <class T, class A> void turn_halves(const T* x, T* y, const A* cosine, const A* sine, int64_t pairs, Vec<A> sign) {
  for_vectors<A>(pairs, [&](int64_t j, int count) {
    const Vec<A> c = load_count(cosine + j, count), s = load_count(sine + j, count) * sign, a = load_count(x + j, count), b = load_count(x + pairs + j, count);
    store_count(y + j, a * c - b * s, count);
    store_count(y + pairs + j, b * c + a * s, count);
  });
}

// Plain products and sums, so that a compiler that vectorises this loop changes no bit.
template <class T, class A> void turn_neighbours(const T* x, T* y, const A* cosine, const A* sine, int64_t pairs, A sign) {
  for (int64_t j = 0; j < pairs; ++j) {
    const A c = cosine[j], s = sine[j] * sign, a = A(x[2 * j]), b = A(x[2 * j + 1]);
    y[2 * j] = T(a * c - b * s);
    y[2 * j + 1] = T(b * c + a * s);
  }
}

void rotary(const TensorView& x, const TensorView& cosine, const TensorView& sine, const TensorView& positions, const TensorView& y, bool interleaved,
            bool inverse) {
  const int64_t tokens = x.shape[0], heads = x.shape[1], width = x.shape[2], rows = cosine.shape[0], pairs = cosine.shape[1];
  const int32_t* at = positions.as<int32_t>();
  for (int64_t t = 0; t < tokens; ++t)
    if (at[t] < 0 || at[t] >= rows)
      fail("ERR_LIBMOE_ARGUMENT", "rotary: position " + std::to_string(at[t]) + " of token " + std::to_string(t) + " is outside the table of " + std::to_string(rows) +
                                      " positions; make the table as long as the longest sequence");
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const A sign = inverse ? A(-1) : A(1);
    parallel_ranges(tokens, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, heads * width)), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const A *c = cosine.as<A>() + at[t] * pairs, *s = sine.as<A>() + at[t] * pairs;
        for (int64_t h = 0; h < heads; ++h) {
          const T* in = x.as<T>() + (t * heads + h) * width;
          T* out = y.as<T>() + (t * heads + h) * width;
          if (interleaved) turn_neighbours(in, out, c, s, pairs, sign);
          else turn_halves(in, out, c, s, pairs, Vec<A>(sign));
          std::copy(in + 2 * pairs, in + width, out + 2 * pairs);
        }
      }
    });
  });
}

}  // namespace

extern const RotaryOps rotary_ops;
const RotaryOps rotary_ops = {rotary};

}  // namespace libmoe::cpu::LIBMOE_ISA

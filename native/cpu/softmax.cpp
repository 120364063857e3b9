// Bound by memory and the exponential: three passes over a row, of which the second and third find it in cache. Rows go to the threads.
#include "ops/softmax.h"

#include <algorithm>
#include <type_traits>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/simd/math.h"
#include "cpu/simd/row.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

// Calls body(row) for every row, about 16 Ki elements at a time.
template <class F> void each_row(const TensorView& x, F&& body) {
  const int64_t rows = x.shape[0], width = x.shape[1];
  if (width == 0) return;
  parallel_ranges(rows, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) body(r);
  });
}

void softmax(const TensorView& x, const TensorView& y, bool logarithm) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape[1];
    each_row(x, [&](int64_t r) {
      const T* in = x.as<T>() + r * width;
      T* out = y.as<T>() + r * width;
      const Vec<A> top(row_max(in, width));
      if (logarithm) {
        const A sum = row_sum<A>(width, [&](int64_t i, int count) { return exp(load_count(in + i, count) - top); });
        const Vec<A> shift = log(Vec<A>(sum));
        for_vectors<A>(width, [&](int64_t i, int count) { store_count(out + i, load_count(in + i, count) - top - shift, count); });
        return;
      }
      // The exponentials wait unrounded, in y itself where its type holds them.
      A* e;
      if constexpr (std::is_same_v<T, A>) e = out;
      else e = scratch_of<A>(0, width);
      const A sum = row_sum<A>(width, [&](int64_t i, int count) {
        const Vec<A> v = exp(load_count(in + i, count) - top);
        store_count(e + i, v, count);
        return v;
      });
      const Vec<A> share(A(1) / sum);
      for_vectors<A>(width, [&](int64_t i, int count) { store_count(out + i, load_count(e + i, count) * share, count); });
    });
  });
}

void softmax_backward(const TensorView& y, const TensorView& dy, const TensorView& dx, bool logarithm) {
  with_float(y.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = y.shape[1];
    each_row(y, [&](int64_t r) {
      const T *p = y.as<T>() + r * width, *g = dy.as<T>() + r * width;
      T* out = dx.as<T>() + r * width;
      if (logarithm) {
        const Vec<A> total(row_sum<A>(width, [&](int64_t i, int count) { return load_count(g + i, count); }));
        for_vectors<A>(width, [&](int64_t i, int count) { store_count(out + i, load_count(g + i, count) - exp(load_count(p + i, count)) * total, count); });
      } else {
        const Vec<A> mean(row_sum<A>(width, [&](int64_t i, int count) { return load_count(p + i, count) * load_count(g + i, count); }));
        for_vectors<A>(width, [&](int64_t i, int count) { store_count(out + i, load_count(p + i, count) * (load_count(g + i, count) - mean), count); });
      }
    });
  });
}

}  // namespace

extern const SoftmaxOps softmax_ops;
const SoftmaxOps softmax_ops = {softmax, softmax_backward};

}  // namespace libmoe::cpu::LIBMOE_ISA

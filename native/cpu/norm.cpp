// Bound by memory: forward reads x and writes y once (the row stays in the first-level cache between the passes), backward reads x and dy
// and writes dx once. Chunks of 64 rows go to the threads; the weight gradients of a chunk are summed on the way.
#include "ops/norm.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/pooled.h"
#include "cpu/simd/row.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kChunk = 64;

void norm(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y, const TensorView& mean, const TensorView& inverse,
          double epsilon) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t rows = x.shape[0], width = x.shape[1];
    const A share = A(1) / A(width);
    const T *w = weight.as<T>(), *b = bias.as<T>();
    parallel_ranges(rows, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* in = x.as<T>() + r * width;
        T* out = y.as<T>() + r * width;
        const A centre = mean ? row_sum<A>(width, [&](int64_t i, int count) { return load_count(in + i, count); }) * share : A(0);
        const Vec<A> c(centre);
        const A square = row_sum<A>(width, [&](int64_t i, int count) {
          const Vec<A> d = load_count(in + i, count) - c;
          return d * d;
        });
        const A scale = A(1) / std::sqrt(square * share + A(epsilon));
        if (mean) mean.as<A>()[r] = centre;
        inverse.as<A>()[r] = scale;
        const Vec<A> s(scale);
        for_vectors<A>(width, [&](int64_t i, int count) {
          const Vec<A> normal = (load_count(in + i, count) - c) * s, scaled = normal * load_count(w + i, count);
          store_count(out + i, b ? scaled + load_count(b + i, count) : scaled, count);
        });
      }
    });
  });
}

// to[i] (+)= sum over chunks of partial[chunk][i], chunks ascending.
template <class A> void combine(const A* partial, int64_t chunks, int64_t stride, int64_t width, A* to, bool accumulate) {
  parallel_ranges(width, 1024, [&](int64_t begin, int64_t end) {
    for_vectors<A>(end - begin, [&](int64_t k, int count) {
      const int64_t i = begin + k;
      Vec<A> sum = Vec<A>::zero();
      for (int64_t c = 0; c < chunks; ++c) sum += load_count(partial + c * stride + i, count);
      store_count(to + i, accumulate ? load_count(to + i, count) + sum : sum, count);
    });
  });
}

void norm_backward(const TensorView& x, const TensorView& weight, const TensorView& dy, const TensorView& mean, const TensorView& inverse, const TensorView& dx,
                   const TensorView& dweight, bool accumulate_weight, const TensorView& dbias, bool accumulate_bias) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t rows = x.shape[0], width = x.shape[1], chunks = (rows + kChunk - 1) / kChunk;
    const A share = A(1) / A(width);
    const T* w = weight.as<T>();
    // Per chunk: its weight gradient, then its bias gradient, each where wanted.
    const int64_t stride = width * ((dweight ? 1 : 0) + (dbias ? 1 : 0));
    Pooled<A> partial(chunks * stride);
    parallel_ranges(rows, kChunk, [&](int64_t begin, int64_t end) {
      A* sums = partial.get() + begin / kChunk * stride;
      std::fill(sums, sums + stride, A(0));
      A *dw = dweight ? sums : nullptr, *db = dbias ? sums + (dweight ? width : 0) : nullptr;
      for (int64_t r = begin; r < end; ++r) {
        const T *in = x.as<T>() + r * width, *g = dy.as<T>() + r * width;
        const Vec<A> c(mean ? mean.as<A>()[r] : A(0)), s(inverse.as<A>()[r]);
        if (dx) {
          const auto weighted = [&](int64_t i, int count) { return load_count(g + i, count) * load_count(w + i, count); };
          const Vec<A> shift(mean ? row_sum<A>(width, weighted) * share : A(0));
          const Vec<A> slope(row_sum<A>(width, [&](int64_t i, int count) { return weighted(i, count) * ((load_count(in + i, count) - c) * s); }) * share);
          T* out = dx.as<T>() + r * width;
          for_vectors<A>(width, [&](int64_t i, int count) {
            const Vec<A> normal = (load_count(in + i, count) - c) * s;
            store_count(out + i, s * (weighted(i, count) - shift - normal * slope), count);
          });
        }
        if (dw)
          for_vectors<A>(width, [&](int64_t i, int count) {
            store_count(dw + i, fma(load_count(g + i, count), (load_count(in + i, count) - c) * s, load_count(dw + i, count)), count);
          });
        if (db) for_vectors<A>(width, [&](int64_t i, int count) { store_count(db + i, load_count(db + i, count) + load_count(g + i, count), count); });
      }
    });
    if (dweight) combine(partial.get(), chunks, stride, width, dweight.as<A>(), accumulate_weight);
    if (dbias) combine(partial.get() + (dweight ? width : 0), chunks, stride, width, dbias.as<A>(), accumulate_bias);
  });
}

template <class T> Accumulator<T> norm_of(const T* x, int64_t width) {
  using A = Accumulator<T>;
  return std::sqrt(row_sum<A>(width, [&](int64_t i, int count) {
    const Vec<A> v = load_count(x + i, count);
    return v * v;
  }));
}

void inverse_norms(const TensorView& x, double floor, double plus, const TensorView& y) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t rows = x.shape[0], width = x.shape[1];
    parallel_ranges(rows, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) y.as<A>()[r] = A(1) / (std::max(norm_of(x.as<T>() + r * width, width), A(floor)) + A(plus));
    });
  });
}

void inverse_norms_backward(const TensorView& x, double floor, const TensorView& y, const TensorView& dy, const TensorView& dx) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t rows = x.shape[0], width = x.shape[1];
    parallel_ranges(rows, kChunk, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* in = x.as<T>() + r * width;
        T* out = dx.as<T>() + r * width;
        const A inverse = y.as<A>()[r], length = norm_of(in, width);
        const Vec<A> slope(length > A(floor) ? -dy.as<A>()[r] * inverse * inverse / length : A(0));
        for_vectors<A>(width, [&](int64_t i, int count) { store_count(out + i, slope * load_count(in + i, count), count); });
      }
    });
  });
}

}  // namespace

extern const NormOps norm_ops;
const NormOps norm_ops = {norm, norm_backward, inverse_norms, inverse_norms_backward};

}  // namespace libmoe::cpu::LIBMOE_ISA

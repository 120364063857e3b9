// Bound by memory: every reduction reads its input once. The axes are merged into [outer, reduced, inner] groups; a group is cut into fixed chunks
// whose partial results go to the threads, and the partials of an output are combined in f64, in order.
#include "ops/reduction.h"

#include <algorithm>
#include <vector>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/pooled.h"
#include "cpu/simd/row.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kPiece = 16384;   // elements per thread item, about
constexpr int64_t kRowChunk = 64;   // rows that are summed in the accumulator's type when the inner axis is kept
constexpr int64_t kColumns = 512;   // columns per item there

template <class T> T narrow(double x) {
  if constexpr (std::is_same_v<T, bf16>) return bf16(float(x));
  else return T(x);
}

template <bool Max> inline double combine(double a, double b) {
  if constexpr (Max) return a > b || a != a ? a : b;
  else return a + b;
}

// in [outer, n] -> out [outer]: rows are contiguous.
template <bool Max, class T, class Out> void reduce_rows(const T* in, int64_t outer, int64_t n, Out* out, double scale) {
  using A = Accumulator<T>;
  const auto chunk = [&](const T* p, int64_t count) -> A {
    if constexpr (Max) return row_max_or_nan(p, count);
    else return row_sum<A>(count, [&](int64_t i, int lanes) { return load_count(p + i, lanes); });
  };
  const int64_t chunks = (n + kSumChunk - 1) / kSumChunk;
  const auto finish = [&](int64_t o, auto&& partial) {
    double r = Max ? -std::numeric_limits<double>::infinity() : 0.0;
    for (int64_t c = 0; c < chunks; ++c) r = combine<Max>(r, double(partial(c)));
    out[o] = narrow<Out>(r * scale);
  };
  if (outer >= 64 || chunks <= 4) {
    parallel_ranges(outer, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, n)), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        finish(o, [&](int64_t c) { return chunk(in + o * n + c * kSumChunk, std::min(kSumChunk, n - c * kSumChunk)); });
    });
    return;
  }
  // Few long rows: the same chunks, but spread over the threads.
  Pooled<A> partials(outer * chunks);
  parallel_ranges(outer * chunks, kPiece / kSumChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t o = i / chunks, c = i % chunks;
      partials.get()[i] = chunk(in + o * n + c * kSumChunk, std::min(kSumChunk, n - c * kSumChunk));
    }
  });
  for (int64_t o = 0; o < outer; ++o) finish(o, [&](int64_t c) { return partials.get()[o * chunks + c]; });
}

// in [outer, n, width] -> out [outer, width].
template <bool Max, class T, class Out> void reduce_columns(const T* in, int64_t outer, int64_t n, int64_t width, Out* out, double scale) {
  using A = Accumulator<T>;
  constexpr int L = Vec<A>::lanes;
  const int64_t chunks = (n + kRowChunk - 1) / kRowChunk, tiles = (width + kColumns - 1) / kColumns;
  Pooled<A> partials(outer * chunks * width);
  parallel_ranges(outer * chunks * tiles, std::max<int64_t>(1, kPiece / (kRowChunk * std::min(width, kColumns))), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t tile = item % tiles, c = item / tiles % chunks, o = item / tiles / chunks;
      const int64_t column = tile * kColumns, columns = std::min(kColumns, width - column), first = c * kRowChunk, rows = std::min(kRowChunk, n - first);
      const T* p = in + (o * n + first) * width + column;
      A* to = partials.get() + (o * chunks + c) * width + column;
      const auto strip = [&](int64_t i, auto vectors, int last) {  // `vectors` registers of columns, the last one with `last` lanes
        constexpr int N = decltype(vectors)::value;
        Vec<A> r[N];
        for (int k = 0; k < N; ++k) r[k] = Max ? Vec<A>(-std::numeric_limits<A>::infinity()) : Vec<A>::zero();
        for (int64_t row = 0; row < rows; ++row)
          for (int k = 0; k < N; ++k) {
            const Vec<A> x = load_count(p + row * width + i + k * L, k == N - 1 ? last : L);
            r[k] = Max ? max_or_nan(r[k], x) : r[k] + x;
          }
        for (int k = 0; k < N; ++k) store_count(to + i + k * L, r[k], k == N - 1 ? last : L);
      };
      int64_t i = 0;
      for (; i + 8 * L <= columns; i += 8 * L) strip(i, std::integral_constant<int, 8>{}, L);
      for (; i < columns; i += L) strip(i, std::integral_constant<int, 1>{}, int(std::min<int64_t>(L, columns - i)));
    }
  });
  parallel_ranges(outer * width, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, chunks)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const A* p = partials.get() + i / width * chunks * width + i % width;
      double r = Max ? -std::numeric_limits<double>::infinity() : 0.0;
      for (int64_t c = 0; c < chunks; ++c) r = combine<Max>(r, double(p[c * width]));
      out[i] = narrow<Out>(r * scale);
    }
  });
}

template <bool Max, class T, class Out> void reduce_group(const T* in, int64_t outer, int64_t n, int64_t width, Out* out, double scale) {
  if (outer * width == 0) return;
  if (width == 1) reduce_rows<Max>(in, outer, n, out, scale);
  else reduce_columns<Max>(in, outer, n, width, out, scale);
}

template <bool Max, class T, class Out> void reduce_all(const T* in, Groups g, Out* out, double scale) {
  using A = Accumulator<T>;
  // The innermost reduced group first; what remains to be reduced after it goes through a block of accumulators.
  int at = int(g.sizes.size()) - 1;
  while (at >= 0 && !g.reduced[size_t(at)]) --at;
  int64_t outer = 1, width = 1;
  for (int i = 0; i < int(g.sizes.size()); ++i) {
    if (i < at) outer *= g.sizes[size_t(i)];
    if (i > at) width *= g.sizes[size_t(i)];
  }
  if (at < 0) return reduce_group<Max>(in, width, 1, 1, out, scale);  // nothing to reduce: a copy
  const int64_t n = g.sizes[size_t(at)];
  if (at < 2) return reduce_group<Max>(in, outer, n, width, out, scale);
  Pooled<A> middle(outer * width);
  reduce_group<Max>(in, outer, n, width, middle.get(), 1.0);
  g.sizes.erase(g.sizes.begin() + at);
  g.reduced.erase(g.reduced.begin() + at);
  reduce_all<Max>(static_cast<const A*>(middle.get()), g, out, scale);
}

void reduce(Reduction f, const TensorView& x, uint32_t axes, const TensorView& y) {
  const Groups g = groups_of(x.shape, axes);
  const double scale = f == Reduction::mean ? 1.0 / (double(x.elements()) / double(std::max<int64_t>(1, y.elements()))) : 1.0;
  with_float(x.dtype, [&]<class T>() {
    const auto run = [&]<class Out>(Out* out) {
      if (f == Reduction::max) reduce_all<true>(x.as<const T>(), g, out, 1.0);
      else reduce_all<false>(x.as<const T>(), g, out, scale);
    };
    if (y.dtype == x.dtype) run(y.as<T>());
    else run(y.as<Accumulator<T>>());
  });
}

template <class F> void each_row(const TensorView& x, F&& body) {
  const int64_t rows = x.shape[0], n = x.shape[1];
  parallel_ranges(rows, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, n)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) body(r, r * n, n);
  });
}

void argmax(const TensorView& x, const TensorView& y) {
  with_float(x.dtype, [&]<class T>() { each_row(x, [&](int64_t r, int64_t at, int64_t n) { y.as<int32_t>()[r] = row_argmax(x.as<T>() + at, n); }); });
}

void log_sum_exp(const TensorView& x, const TensorView& y) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    each_row(x, [&](int64_t r, int64_t at, int64_t n) { y.as<A>()[r] = A(row_log_sum_exp(x.as<T>() + at, n)); });
  });
}

void log_sum_exp_backward(const TensorView& x, const TensorView& y, const TensorView& dy, const TensorView& dx) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    each_row(x, [&](int64_t r, int64_t at, int64_t n) {
      const Vec<A> lse(y.as<A>()[r]), g(dy.as<A>()[r]);
      const T* in = x.as<T>() + at;
      T* out = dx.as<T>() + at;
      for_vectors<A>(n, [&](int64_t i, int count) { store_count(out + i, g * exp(load_count(in + i, count) - lse), count); });
    });
  });
}

}  // namespace

extern const ReductionOps reduction_ops;
const ReductionOps reduction_ops = {reduce, argmax, log_sum_exp, log_sum_exp_backward};

}  // namespace libmoe::cpu::LIBMOE_ISA

#pragma once
// Reductions of one contiguous row. The order is a function of the row's length and the instruction set alone.
#include <algorithm>
#include <limits>

#include "cpu/simd/math.h"

namespace libmoe::cpu::LIBMOE_ISA {

// Elements that are summed in the accumulator's type before their sum goes on in f64 (row_sum_f64 and the reductions).
inline constexpr int64_t kSumChunk = 1024;

// x with every lane from `count` on set to 0.
template <class A> inline Vec<A> keep_first(Vec<A> x, int count) {
  typename Vec<A>::RawInt lane;
  for (int i = 0; i < Vec<A>::lanes; ++i) lane[i] = i;
  return select<A>(lane < (typename Vec<A>::RawInt){} + typename Vec<A>::Int(count), x, Vec<A>::zero());
}

// Sum over [0, n) of term(offset, count), a vector whose lanes from `count` on are ignored. Four running sums hide the latency of the addition.
template <class A, class F> inline A row_sum(int64_t n, F&& term) {
  constexpr int L = Vec<A>::lanes;
  Vec<A> s0 = Vec<A>::zero(), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    s0 += term(i, L);
    s1 += term(i + L, L);
    s2 += term(i + 2 * L, L);
    s3 += term(i + 3 * L, L);
  }
  for (; i + L <= n; i += L) s0 += term(i, L);
  if (i < n) s1 += keep_first<A>(term(i, int(n - i)), int(n - i));
  return sum_lanes((s0 + s1) + (s2 + s3));
}

// The same in fixed chunks whose sums are added in f64.
template <class A, class F> inline double row_sum_f64(int64_t n, F&& term) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kSumChunk)
    total += double(row_sum<A>(std::min(kSumChunk, n - begin), [&](int64_t i, int count) { return term(begin + i, count); }));
  return total;
}

// Largest element, -infinity for an empty row; a NaN may be missed.
template <class T> inline Accumulator<T> row_max(const T* x, int64_t n) {
  using A = Accumulator<T>;
  constexpr int L = Vec<A>::lanes;
  const A lowest = -std::numeric_limits<A>::infinity();
  Vec<A> m0(lowest), m1 = m0;
  int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    m0 = max(m0, load(x + i));
    m1 = max(m1, load(x + i + L));
  }
  for (; i < n; i += L) m0 = max(m0, load_count(x + i, n - i < L ? int(n - i) : L, lowest));
  return max_lanes(max(m0, m1));
}

// max(a, b) where a NaN wins.
template <class T> inline Vec<T> max_or_nan(Vec<T> a, Vec<T> b) { return select<T>((a.v > b.v) | (a.v != a.v), a, b); }

// Largest element, NaN if there is one, -infinity for an empty row.
template <class T> inline Accumulator<T> row_max_or_nan(const T* x, int64_t n) {
  using A = Accumulator<T>;
  const A lowest = -std::numeric_limits<A>::infinity();
  Vec<A> best(lowest);
  for_vectors<A>(n, [&](int64_t i, int count) { best = max_or_nan(best, load_count(x + i, count, lowest)); });
  A lane[Vec<A>::lanes];
  store(lane, best);
  A m = lane[0];
  for (A v : lane)
    if (v > m || v != v) m = v;
  return m;
}

// Index of the largest element, the lowest on ties; of the first NaN if there is one. n >= 1.
template <class T> inline int32_t row_argmax(const T* x, int64_t n) {
  using A = Accumulator<T>;
  const A m = row_max_or_nan(x, n);
  for (int64_t i = 0; i < n; ++i) {
    const A v = A(x[i]);
    if (v == m || v != v) return int32_t(i);
  }
  return 0;
}

template <class A> inline A log_one(A x) { return log(Vec<A>(x)).v[0]; }

// log sum exp in f64: the sum itself is one of f32 terms (f64 for f64).
template <class T> inline double row_log_sum_exp(const T* x, int64_t n) {
  using A = Accumulator<T>;
  const A m = row_max_or_nan(x, n);
  if (!(m - m == 0)) return double(m);  // infinite or NaN: the answer already
  const Vec<A> top(m);
  return double(m) + log_one<double>(row_sum_f64<A>(n, [&](int64_t i, int count) { return exp(load_count(x + i, count) - top); }));
}

}  // namespace libmoe::cpu::LIBMOE_ISA

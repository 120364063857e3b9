#pragma once
// Reductions of one contiguous row, for the kernels that need a row's sum, maximum or log-sum-exp. Bits depend on the row and the instruction set only.
#include <algorithm>
#include <limits>

#include "cpu/simd/math.h"

namespace libmoe::cpu::LIBMOE_ISA {

// Elements that are summed in the accumulator's type before their sum goes on in f64.
inline constexpr int64_t kSumChunk = 1024;

// max(a, b) where a NaN wins.
template <class T> inline Vec<T> max_or_nan(Vec<T> a, Vec<T> b) { return select<T>((a.v > b.v) | (a.v != a.v), a, b); }

// Sum over i in [0, n), n <= kSumChunk, of term(i, count): a vector whose lanes past `count` are zero. Four running sums hide the latency of the addition.
template <class A, class F> inline A sum_chunk(int64_t n, F&& term) {
  constexpr int L = Vec<A>::lanes;
  Vec<A> s[4] = {Vec<A>::zero(), Vec<A>::zero(), Vec<A>::zero(), Vec<A>::zero()};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L)
    for (int k = 0; k < 4; ++k) s[k] += term(i + k * L, L);
  for (int k = 0; i < n; i += L, ++k) s[k] += term(i, int(std::min<int64_t>(L, n - i)));
  return sum_lanes((s[0] + s[1]) + (s[2] + s[3]));
}

// Sum over any n: fixed chunks, then f64.
template <class A, class F> inline double sum_row(int64_t n, F&& term) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kSumChunk)
    total += double(sum_chunk<A>(std::min(kSumChunk, n - begin), [&](int64_t i, int count) { return term(begin + i, count); }));
  return total;
}

// Largest element, NaN if there is one, -infinity for an empty row.
template <class T> inline Accumulator<T> max_row(const T* x, int64_t n) {
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

// Index of max_row's element, the lowest on ties; of the first NaN if there is one. n >= 1.
template <class T> inline int32_t argmax_row(const T* x, int64_t n) {
  using A = Accumulator<T>;
  const A m = max_row(x, n);
  for (int64_t i = 0; i < n; ++i) {
    const A v = A(x[i]);
    if (v == m || v != v) return int32_t(i);
  }
  return 0;
}

template <class A> inline A log_one(A x) { return log(Vec<A>(x)).v[0]; }

// sum of exp(x[i] - shift).
template <class T> inline double sum_exp_row(const T* x, int64_t n, Accumulator<T> shift) {
  using A = Accumulator<T>;
  const A lowest = -std::numeric_limits<A>::infinity();
  const Vec<A> s(shift);
  return sum_row<A>(n, [&](int64_t i, int count) { return exp(load_count(x + i, count, lowest) - s); });
}

// log sum exp in f64: the sum itself is one of f32 terms (f64 for f64).
template <class T> inline double log_sum_exp_row(const T* x, int64_t n) {
  const auto m = max_row(x, n);
  if (!(m - m == 0)) return double(m);  // infinite or NaN: the answer already
  return double(m) + log_one<double>(sum_exp_row(x, n, m));
}

}  // namespace libmoe::cpu::LIBMOE_ISA

#pragma once
// Reductions over one row. The order is a function of the row's length and the instruction set alone.
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {

// x with every lane from `count` on set to `fill`.
template <class A> inline Vec<A> keep_first(Vec<A> x, int count, A fill = A(0)) {
  if (count == Vec<A>::lanes) return x;
  A lane[Vec<A>::lanes];
  store(lane, x);
  for (int i = count; i < Vec<A>::lanes; ++i) lane[i] = fill;
  return load(lane);
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

// Largest of p[0, n); a NaN may be missed.
template <class A, class T> inline A row_max(const T* p, int64_t n) {
  constexpr int L = Vec<A>::lanes;
  const A lowest = -A(__builtin_inf());
  Vec<A> m0(lowest), m1 = m0;
  int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    m0 = max(m0, load(p + i));
    m1 = max(m1, load(p + i + L));
  }
  for (; i < n; i += L) m0 = max(m0, load_count(p + i, n - i < L ? int(n - i) : L, lowest));
  return max_lanes(max(m0, m1));
}

}  // namespace libmoe::cpu::LIBMOE_ISA

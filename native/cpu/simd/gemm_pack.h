#pragma once
// Brings operands into the order in which the tile kernels read them. Rows may be gathered through an index; padding is zero.
#include <algorithm>

#include "cpu/simd/gemm_kernel.h"

namespace libmoe::cpu::LIBMOE_ISA {

// A row-major operand: row i is data + (index ? index[i] : i) * ld; a negative index is a row of zeros.
template <class T> struct Matrix {
  const T* data = nullptr;
  int64_t ld = 0;
  const int32_t* index = nullptr;
  const T* row(int64_t i) const {
    const int64_t at = index ? index[i] : i;
    return at < 0 ? nullptr : data + at * ld;
  }
};

namespace pack_detail {

// `Vec::lanes` k-words of one row, `count` elements of which exist (all of them when Whole).
template <class P, bool Whole = false> inline Vec<typename P::Acc> words_along(const typename P::In* row, [[maybe_unused]] int64_t count = 0) {
  using V = Vec<typename P::Acc>;
  if constexpr (P::per_word == 2) {
    V r = V::zero();
    if (Whole || (row && count >= 2 * V::lanes)) std::memcpy(&r.v, row, sizeof r.v);
    else if (row && count > 0) std::memcpy(&r.v, row, size_t(count) * 2);
    return r;
  } else {
    if constexpr (Whole) return load(row);
    if (!row || count <= 0) return V::zero();
    return count >= V::lanes ? load(row) : load_partial(row, int(count));
  }
}

// One k-word of `Vec::lanes` neighbouring columns: from one row of k, or from two for pairs (`next` null past the end of k).
template <class P, bool Whole = false>
inline Vec<typename P::Acc> words_across(const typename P::In* row, [[maybe_unused]] const typename P::In* next, [[maybe_unused]] int64_t count = 0) {
  using V = Vec<typename P::Acc>;
  const auto one = [&](const typename P::In* p) {
    if constexpr (Whole) return load(p);
    return !p || count <= 0 ? V::zero() : load_count(p, int(std::min<int64_t>(count, V::lanes)));
  };
  if constexpr (P::per_word == 2) {
    using U = typename V::RawInt;
    const U low = (U)one(row).v, high = (U)one(next).v;  // bf16 as the upper half of an f32
    return V((typename V::Raw)(((low >> 16) & 0xffff) | high));
  } else {
    return one(row);
  }
}

// Rows i and i + L/2 interleaved, log2(L) times over: a transpose.
template <class Acc> inline void transpose(Vec<Acc>* r) {
  constexpr int L = Vec<Acc>::lanes;
  using I = typename Vec<Acc>::RawInt;
  I low, high;
  for (int i = 0; i < L; ++i) {
    low[i] = i / 2 + (i % 2) * L;
    high[i] = L / 2 + i / 2 + (i % 2) * L;
  }
  Vec<Acc> t[L];
#pragma GCC unroll 4
  for (int width = 1; width < L; width *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; ++i) {
      t[2 * i] = __builtin_shuffle(r[i].v, r[i + L / 2].v, low);
      t[2 * i + 1] = __builtin_shuffle(r[i].v, r[i + L / 2].v, high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) r[i] = t[i];
  }
}

}  // namespace pack_detail

// k-words in `elements` elements.
template <class P> inline int64_t words_of(int64_t elements) { return (elements + P::per_word - 1) / P::per_word; }
// A panel's size in words, either form.
inline int64_t panel_size(int64_t words) { return (words + kPanelWords - 1) / kPanelWords * kPanelWords * kPanelRows; }

// Rows [m0, m0 + rows) and elements [k0, k0 + k) of a matrix whose rows are the rows of the product.
template <class P> inline void pack_panel_rows(const Matrix<typename P::In>& a, int64_t m0, int rows, int64_t k0, int64_t k, typename P::Acc* panel) {
  constexpr int L = Vec<typename P::Acc>::lanes;
  constexpr int64_t block = int64_t(kPanelWords) * kPanelRows;
  const int64_t words = words_of<P>(k), whole = k / P::per_word / kPanelWords * kPanelWords;
  for (int r = 0; r < rows; ++r) {
    const typename P::In* row = a.row(m0 + r);
    typename P::Acc* out = panel + r * kPanelWords;
    if (row) row += k0;
    int64_t w = 0;
    if (row)
      for (; w < whole; w += kPanelWords, out += block)
#pragma GCC unroll 16
        for (int i = 0; i < kPanelWords; i += L) store(out + i, pack_detail::words_along<P, true>(row + (w + i) * P::per_word));
    for (; w < words; w += kPanelWords, out += block)
      for (int64_t i = 0; i < kPanelWords && w + i < words; i += L)
        store(out + i, pack_detail::words_along<P>(row ? row + (w + i) * P::per_word : nullptr, k - (w + i) * P::per_word));
  }
}

// Panels `stride` words apart from a matrix whose rows are k: columns [m0, m0 + rows) of `columns`. Several at once, because a line of the
// matrix holds columns of more than one panel.
template <class P>
inline void pack_panels_by_k(const Matrix<typename P::In>& a, int64_t columns, int64_t m0, int64_t rows, int64_t k0, int64_t k, typename P::Acc* panels, int64_t stride) {
  constexpr int L = Vec<typename P::Acc>::lanes, vectors = kPanelRows / L;
  const int64_t words = words_of<P>(k), count = (rows + kTileRows - 1) / kTileRows;
  const bool whole = m0 + (count - 1) * kTileRows + vectors * L <= columns;
  for (int64_t w = 0; w < words; ++w) {
    const int64_t at = w * P::per_word;
    const typename P::In* row = a.row(k0 + at);
    const typename P::In* next = P::per_word == 2 && at + 1 < k ? a.row(k0 + at + 1) : nullptr;
    typename P::Acc* out = panels + w * kPanelRows;
    if (whole && row && (P::per_word == 1 || next)) {
      row += m0;
      if (P::per_word == 2) next += m0;
      for (int64_t p = 0; p < count; ++p, out += stride, row += kTileRows, next += P::per_word == 2 ? kTileRows : 0)
#pragma GCC unroll 4
        for (int i = 0; i < vectors; ++i) store(out + i * L, pack_detail::words_across<P, true>(row + i * L, next + (P::per_word == 2 ? i * L : 0)));
    } else {
      for (int64_t p = 0; p < count; ++p, out += stride)
        for (int i = 0; i < vectors; ++i) {
          const int64_t m = m0 + p * kTileRows + i * L;
          store(out + i * L, pack_detail::words_across<P>(row ? row + m : nullptr, next ? next + m : nullptr, columns - m));
        }
    }
  }
}

// How far ahead rows are asked for: far enough for weights that come from memory.
template <class T> inline constexpr int64_t kAheadElements = 512 / int64_t(sizeof(T));

// Columns [n0, n0 + kTileColumns) from a matrix whose rows are the columns of the product (there are `columns`): a transpose in registers.
template <class P> inline void pack_sliver_rows(const Matrix<typename P::In>& b, int64_t columns, int64_t n0, int64_t k0, int64_t k, typename P::Acc* sliver) {
  using V = Vec<typename P::Acc>;
  constexpr int L = V::lanes, step = 2 * L;
  const int64_t words = words_of<P>(k);
  for (int half = 0; half < 2; ++half) {
    const typename P::In* rows[L];
    bool all = true;
    for (int i = 0; i < L; ++i) {
      const int64_t n = n0 + half * L + i;
      rows[i] = n < columns ? b.row(n) : nullptr;
      if (rows[i]) rows[i] += k0;
      else all = false;
    }
    typename P::Acc* out = sliver + half * L;
    int64_t w = 0;
    if (all)
      for (; (w + L) * P::per_word <= k; w += L, out += L * step) {
        V r[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) {
          // To L2: rows a power of two apart would push each other out of L1.
          __builtin_prefetch(rows[i] + w * P::per_word + kAheadElements<typename P::In>, 0, 2);
          r[i] = pack_detail::words_along<P, true>(rows[i] + w * P::per_word);
        }
        pack_detail::transpose<typename P::Acc>(r);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) store(out + i * step, r[i]);
      }
    for (; w < words; w += L, out += L * step) {
      V r[L];
      const int64_t at = w * P::per_word;
      for (int i = 0; i < L; ++i) r[i] = pack_detail::words_along<P>(rows[i] ? rows[i] + at : nullptr, k - at);
      pack_detail::transpose<typename P::Acc>(r);
      for (int i = 0; i < std::min<int64_t>(L, words - w); ++i) store(out + i * step, r[i]);
    }
  }
}

// Columns [n0, n1) from a matrix whose rows are k and which has `columns` columns: copied row by row into slivers `stride` words apart.
template <class P>
inline void pack_slivers_by_k(const Matrix<typename P::In>& b, int64_t columns, int64_t n0, int64_t n1, int64_t k0, int64_t k, typename P::Acc* slivers, int64_t stride) {
  using V = Vec<typename P::Acc>;
  constexpr int L = V::lanes, step = 2 * L;
  const int64_t words = words_of<P>(k);
  const bool whole = n0 + (n1 - n0 + step - 1) / step * step <= columns;
  for (int64_t w = 0; w < words; ++w) {
    const int64_t at = w * P::per_word;
    const typename P::In* row = b.row(k0 + at);
    const typename P::In* next = P::per_word == 2 && at + 1 < k ? b.row(k0 + at + 1) : nullptr;
    typename P::Acc* out = slivers + w * step;
    if (whole && row && (P::per_word == 1 || next)) {
      for (int64_t n = n0; n < n1; n += step, out += stride) {
        store(out, pack_detail::words_across<P, true>(row + n, next + (P::per_word == 2 ? n : 0)));
        store(out + L, pack_detail::words_across<P, true>(row + n + L, next + (P::per_word == 2 ? n + L : 0)));
      }
    } else {
      for (int64_t n = n0; n < n1; n += step, out += stride)
        for (int i = 0; i < step; i += L)
          store(out + i, pack_detail::words_across<P>(row ? row + n + i : nullptr, next ? next + n + i : nullptr, columns - n - i));
    }
  }
}

}  // namespace libmoe::cpu::LIBMOE_ISA

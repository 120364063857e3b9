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

// `Vec::lanes` k-words of one row, `count` elements of which exist.
template <class P> inline Vec<typename P::Acc> words_along(const typename P::In* row, int64_t count) {
  using V = Vec<typename P::Acc>;
  if constexpr (P::per_word == 2) {
    V r = V::zero();
    if (row && count >= 2 * V::lanes) std::memcpy(&r.v, row, sizeof r.v);
    else if (row && count > 0) std::memcpy(&r.v, row, size_t(count) * 2);
    return r;
  } else {
    if (!row || count <= 0) return V::zero();
    return count >= V::lanes ? load(row) : load_partial(row, int(count));
  }
}

// One k-word of `Vec::lanes` neighbouring columns: from one row of k, or from two for pairs (`next` null past the end of k).
template <class P> inline Vec<typename P::Acc> words_across(const typename P::In* row, [[maybe_unused]] const typename P::In* next, int64_t count) {
  using V = Vec<typename P::Acc>;
  const int n = int(std::min<int64_t>(count, V::lanes));
  const auto one = [&](const typename P::In* p) { return !p || n <= 0 ? V::zero() : load_count(p, n); };
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
// A panel's size in words, with room for the whole vectors that the by-k form writes past its end.
inline int64_t panel_size(int64_t words) { return (words + kPanelWords - 1) / kPanelWords * kPanelWords * kTileRows + 2 * kVectorBytes; }

// Rows [m0, m0 + rows) and elements [k0, k0 + k) of a matrix whose rows are the rows of the product.
template <class P> inline void pack_panel_rows(const Matrix<typename P::In>& a, int64_t m0, int rows, int64_t k0, int64_t k, typename P::Acc* panel) {
  constexpr int L = Vec<typename P::Acc>::lanes;
  const int64_t words = words_of<P>(k);
  for (int r = 0; r < rows; ++r) {
    const typename P::In* row = a.row(m0 + r);
    if (row) row += k0;
    for (int64_t w = 0; w < words; w += L)
      store(panel + (w / kPanelWords) * kPanelWords * kTileRows + r * kPanelWords + w % kPanelWords,
            pack_detail::words_along<P>(row ? row + w * P::per_word : nullptr, k - w * P::per_word));
  }
}

// The same from a matrix whose rows are k: columns [m0, m0 + rows) of `columns`.
template <class P> inline void pack_panel_by_k(const Matrix<typename P::In>& a, int64_t columns, int64_t m0, int rows, int64_t k0, int64_t k, typename P::Acc* panel) {
  constexpr int L = Vec<typename P::Acc>::lanes;
  const int64_t words = words_of<P>(k), room = columns - m0;
  for (int64_t w = 0; w < words; ++w, panel += kTileRows) {
    const int64_t at = w * P::per_word;
    const typename P::In* row = a.row(k0 + at);
    const typename P::In* next = P::per_word == 2 && at + 1 < k ? a.row(k0 + at + 1) : nullptr;
    // Whole vectors: what runs past kTileRows is overwritten by the next word.
    for (int r = 0; r < rows; r += L) store(panel + r, pack_detail::words_across<P>(row ? row + m0 + r : nullptr, next ? next + m0 + r : nullptr, room - r));
  }
}

// Columns [n0, n0 + kTileColumns) from a matrix whose rows are the columns of the product (there are `columns`): a transpose in registers.
template <class P> inline void pack_sliver_rows(const Matrix<typename P::In>& b, int64_t columns, int64_t n0, int64_t k0, int64_t k, typename P::Acc* sliver) {
  using V = Vec<typename P::Acc>;
  constexpr int L = V::lanes, step = 2 * L;
  constexpr int ahead = 512 / int(sizeof(typename P::In));  // elements: far enough for weights that come from memory
  const int64_t words = words_of<P>(k);
  for (int half = 0; half < 2; ++half) {
    const typename P::In* rows[L];
    for (int i = 0; i < L; ++i) {
      const int64_t n = n0 + half * L + i;
      rows[i] = n < columns ? b.row(n) : nullptr;
      if (rows[i]) rows[i] += k0;
    }
    typename P::Acc* out = sliver + half * L;
    for (int64_t w = 0; w < words; w += L) {
      V r[L];
      const int64_t at = w * P::per_word;
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        if (rows[i]) __builtin_prefetch(rows[i] + at + ahead);
        r[i] = pack_detail::words_along<P>(rows[i] ? rows[i] + at : nullptr, k - at);
      }
      pack_detail::transpose<typename P::Acc>(r);
      const int n = int(std::min<int64_t>(L, words - w));
      if (n == L) {
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) store(out + (w + i) * step, r[i]);
      } else {
        for (int i = 0; i < n; ++i) store(out + (w + i) * step, r[i]);
      }
    }
  }
}

// Columns [n0, n1) from a matrix whose rows are k and which has `columns` columns: copied row by row into slivers `stride` words apart.
template <class P>
inline void pack_slivers_by_k(const Matrix<typename P::In>& b, int64_t columns, int64_t n0, int64_t n1, int64_t k0, int64_t k, typename P::Acc* slivers, int64_t stride) {
  using V = Vec<typename P::Acc>;
  constexpr int L = V::lanes;
  const int64_t words = words_of<P>(k);
  for (int64_t w = 0; w < words; ++w) {
    const int64_t at = w * P::per_word;
    const typename P::In* row = b.row(k0 + at);
    const typename P::In* next = P::per_word == 2 && at + 1 < k ? b.row(k0 + at + 1) : nullptr;
    typename P::Acc* out = slivers + w * 2 * L;
    for (int64_t n = n0; n < n1; n += 2 * L, out += stride) {
      store(out, pack_detail::words_across<P>(row ? row + n : nullptr, next ? next + n : nullptr, columns - n));
      store(out + L, pack_detail::words_across<P>(row ? row + n + L : nullptr, next ? next + n + L : nullptr, columns - n - L));
    }
  }
}

}  // namespace libmoe::cpu::LIBMOE_ISA

#pragma once
// C = A B for blocks that lie in cache, the rows of C and B in whole vectors: what attention is made of.
// Every element of C is one chain of multiply-adds over k, ascending, whatever tile it falls into: its bits depend on its own row of A and
// column of B alone, and a term that is zero changes nothing.
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {

// As many sums as the registers hold: 8 x 3 of 32, or 4 x 3 (4 x 2 where a multiply-add needs a register more) of 16.
inline constexpr int kProductRows = kVectorBytes == 64 ? 8 : 4;
inline constexpr int kTileVectors = kVectorBytes == 16 ? 2 : 3;

// Where the chains begin: at 0, at C, or at C * factor, one factor per column.
enum class Begin { zero, at_c, at_scaled_c };

// Element (m, k) of the left operand is at data[m * row + k * column].
template <class A> struct Left {
  const A* data;
  int64_t row, column;
};

template <Begin S, int M, int N, class A>
inline void product_tile(const A* a, int64_t a_row, int64_t a_column, const A* b, int64_t b_row, A* c, int64_t c_row, int64_t depth, const A* factor) {
  using V = Vec<A>;
  constexpr int L = V::lanes;
  V sum[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      if constexpr (S == Begin::zero) sum[m][n] = V::zero();
      if constexpr (S == Begin::at_c) sum[m][n] = load(c + m * c_row + n * L);
      if constexpr (S == Begin::at_scaled_c) sum[m][n] = load(c + m * c_row + n * L) * load(factor + n * L);
    }
  for (int64_t k = 0; k < depth; ++k) {
    V right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) right[n] = load(b + n * L);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const V left(a[m * a_row]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[m][n] = fma(left, right[n], sum[m][n]);
    }
    a += a_column;
    b += b_row;
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(c + m * c_row + n * L, sum[m][n]);
}

// `rows` is a multiple of 4; N vectors of columns. Not inlined: the tile needs the registers of its caller too.
template <Begin S, int N, class A>
__attribute__((noinline)) void product_columns(int64_t rows, Left<A> a, const A* b, int64_t b_row, A* c, int64_t c_row, int64_t depth, const A* factor = nullptr) {
  int64_t m = 0;
  for (; m + kProductRows <= rows; m += kProductRows)
    product_tile<S, kProductRows, N>(a.data + m * a.row, a.row, a.column, b, b_row, c + m * c_row, c_row, depth, factor);
  if constexpr (kProductRows > 4)
    if (m < rows) product_tile<S, 4, N>(a.data + m * a.row, a.row, a.column, b, b_row, c + m * c_row, c_row, depth, factor);
}

// C += A B with any number of vectors of columns.
template <class A> inline void add_product(int64_t rows, int64_t vectors, Left<A> a, const A* b, int64_t b_row, A* c, int64_t c_row, int64_t depth) {
  constexpr int L = Vec<A>::lanes;
  int64_t n = 0;
  for (; n + kTileVectors <= vectors; n += kTileVectors) product_columns<Begin::at_c, kTileVectors>(rows, a, b + n * L, b_row, c + n * L, c_row, depth);
  if constexpr (kTileVectors > 2)
    if (n + 2 <= vectors) {
      product_columns<Begin::at_c, 2>(rows, a, b + n * L, b_row, c + n * L, c_row, depth);
      n += 2;
    }
  if (n < vectors) product_columns<Begin::at_c, 1>(rows, a, b + n * L, b_row, c + n * L, c_row, depth);
}

}  // namespace libmoe::cpu::LIBMOE_ISA

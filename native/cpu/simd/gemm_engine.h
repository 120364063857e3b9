#pragma once
// Matrix products on packed panels. gemm() is what other families call; multiply() is the block that gemm() and grouped_ffn are made of.
//
// Blocking: of K, pieces of at most kBlockK words, so that a panel of `a` (kTileRows x kBlockK) fits L1; of the columns, as many slivers as
// leave the packed block of `b` room in L2; panels of `a` are packed once for all blocks, or, when they are too many to keep, for each block
// anew. Partial sums between pieces of K rest in the output itself, or in scratch when the output is narrower than the accumulator.
// Scratch lanes 5, 6 and 7 belong to this file; callers inside a parallel_for may use 0 to 4.
#include "core/thread_pool.h"
#include "cpu/simd/gemm_pack.h"
#include "cpu/simd/gemm_stream.h"

namespace libmoe::cpu::LIBMOE_ISA {

// c [m, n] = a [m, k] * b [k, n] (+ bias over n) (+ c).
struct Gemm {
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0;  // leading dimensions in elements, of the matrices as stored
  bool transpose_a = false;                                // a is stored [k, m]
  bool transpose_b = false;                                // b is stored [n, k]
  bool accumulate = false;
  const void* bias = nullptr;                              // [n], dtype `in`, or null
  Dtype in = Dtype::f32, out = Dtype::f32;                 // out: as in, or f32 for bf16
  int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;  // several products, elements apart
};
// Spread over the pool; from inside a parallel_for it runs on the calling thread. The bits of an element depend on its row of a, its column of b and k only.
void gemm(const Gemm& g);

inline constexpr int64_t kBlockK = 512;
int64_t block_bytes();                                      // packed b per block: five eighths of this processor's L2
inline constexpr int64_t kGroupRows = 4 * kTileRows;        // panels packed at a time
inline constexpr int64_t kPanelBytes = int64_t(6) << 20;    // packed a kept for several blocks
inline constexpr int64_t kFewWords = 4 * kPanelWords;       // k-words per piece of b for few rows

// One product; rows of a and of b may be gathered.
template <class P> struct Product {
  Matrix<typename P::In> a, b;
  bool a_by_k = false;  // a's rows are k
  bool b_by_k = false;  // b's rows are k; otherwise they are the columns of the product
  int64_t m = 0, n = 0, k = 0;
};

// The length of K pieces: equal ones, whole panel blocks.
template <class P> inline int64_t block_k(int64_t k) {
  const int64_t most = kBlockK * P::per_word, pieces = std::max<int64_t>(1, (k + most - 1) / most), unit = int64_t(kPanelWords) * P::per_word;
  return pieces == 1 ? k : ((k + pieces - 1) / pieces + unit - 1) / unit * unit;
}
// Columns per block, a multiple of the tile's.
template <class P> inline int64_t block_columns(int64_t n, int64_t k) {
  constexpr int64_t tile = kTileColumns<typename P::Acc>;
  const int64_t sliver_bytes = words_of<P>(std::max<int64_t>(1, block_k<P>(k))) * tile * int64_t(sizeof(typename P::Acc));
  const int64_t slivers = (n + tile - 1) / tile, most = std::max<int64_t>(1, block_bytes() / sliver_bytes), blocks = std::max<int64_t>(1, (slivers + most - 1) / most);
  return std::max<int64_t>(1, (slivers + blocks - 1) / blocks) * tile;
}

// Asks for part `part` of `parts` of what packing rows [m, m + rows) will read.
template <class P> inline void prefetch_panels(const Product<P>& p, int64_t m, int64_t rows, int64_t k0, int64_t k, int64_t part, int64_t parts) {
  constexpr int64_t line = 64 / int64_t(sizeof(typename P::In));
  if (p.a_by_k) {
    for (int64_t i = k * part / parts; i < k * (part + 1) / parts; ++i)
      if (const typename P::In* row = p.a.row(k0 + i))
        for (int64_t j = 0; j < rows; j += line) __builtin_prefetch(row + m + j, 0, 2);
  } else {
    for (int64_t i = rows * part / parts; i < rows * (part + 1) / parts; ++i)
      if (const typename P::In* row = p.a.row(m + i))
        for (int64_t j = 0; j < k; j += line) __builtin_prefetch(row + k0 + j, 0, 2);
  }
}

// multiply() for at most kTileRows rows.
template <class P, class Finish>
void multiply_streamed(const Product<P>& p, int64_t m0, int64_t m1, int64_t n0, int64_t n1, typename P::Acc* c, int64_t ldc, bool accumulate, Finish&& finish) {
  using Acc = typename P::Acc;
  constexpr int64_t tile = kTileColumns<Acc>;
  const int r = int(m1 - m0);
  Acc* panel = scratch_of<Acc>(5, panel_size(p.k));
  alignas(64) Acc sums[kTileRows * tile];
  const typename P::In* rows[tile * 3 / 2];
  pack_panel_rows<P>(p.a, m0, r, 0, p.k, panel);
  for (int64_t n = n0; n < n1; n += tile) {
    const int64_t count = std::min(tile, n1 - n);
    for (int64_t i = 0; i < tile * 3 / 2; ++i) rows[i] = n + i < std::min(n1, p.n) ? p.b.row(n + i) : nullptr;
    const bool direct = c && count == tile;
    Acc* out = direct ? c + m0 * ldc + n : sums;
    const int64_t stride = direct ? ldc : tile;
    if (!direct && accumulate)
      for (int i = 0; i < r; ++i) std::copy_n(c + (m0 + i) * ldc + n, count, out + i * stride);
    stream_kernels<P>().rows[r - 1](p.k, panel, rows, out, stride, accumulate);
    finish(m0, r, n, count, out, stride);
  }
}

// Rows [m0, m1) and columns [n0, n1) of a product, n0 a multiple of the tile's columns, on the calling thread.
// With `c` (f32 / f64, row stride ldc) whole tiles are summed there, otherwise in scratch; `accumulate` (needs c) starts from what c holds.
// finish(row, rows, column, columns, sums, stride) is called once per tile when its sums are complete, wherever they rest: tiles that are not
// whole are in scratch even with `c`, and finish has to copy them when sums does not point into c.
template <class P, class Finish>
void multiply(const Product<P>& p, int64_t m0, int64_t m1, int64_t n0, int64_t n1, typename P::Acc* c, int64_t ldc, bool accumulate, Finish&& finish) {
  using Acc = typename P::Acc;
  constexpr int64_t tile = kTileColumns<Acc>;
  const int64_t rows = m1 - m0, all_words = words_of<P>(p.k);
  if (rows <= 0 || n1 <= n0) return;
  if constexpr (P::per_word == 1)
    if (rows <= kTileRows && !p.a_by_k && !p.b_by_k) return multiply_streamed(p, m0, m1, n0, n1, c, ldc, accumulate, finish);
  // Few rows: a sliver of b is used once or a few times, so it comes in pieces that only pass through L1, while the next piece is fetched.
  const bool few = rows <= kGroupRows && !p.b_by_k;
  const int64_t piece = few ? std::min<int64_t>(p.k, kFewWords * P::per_word) : block_k<P>(p.k), width = few ? tile : block_columns<P>(n1 - n0, p.k);
  const int64_t sliver_size = words_of<P>(std::max<int64_t>(1, piece)) * tile;
  const bool pieces = p.k > piece;
  // a is packed once for all blocks of columns where its panels fit into L3, else four panels at a time for every block.
  const int64_t panel_count = (rows + kTileRows - 1) / kTileRows;
  const bool once = few || (n1 - n0 > width && panel_count * panel_size(all_words) * int64_t(sizeof(Acc)) <= kPanelBytes);
  const int64_t panel_stride = panel_size(once ? all_words : words_of<P>(piece));
  Acc* panels = scratch_of<Acc>(5, panel_stride * (once ? panel_count : kGroupRows / kTileRows));
  Acc* slivers = scratch_of<Acc>(6, sliver_size * (width / tile));
  // Sums that cannot rest in c: all tiles of the block while K comes in pieces, else one tile at a time.
  const bool ragged = (n1 - n0) % tile != 0;
  Acc* sums = !c || ragged ? scratch_of<Acc>(7, pieces ? (rows + kTileRows) * (c ? tile : width) : kTileRows * tile) : nullptr;
  const TileKernels<Acc>& kernels = kernels_of<P>(p.a_by_k);
  const auto pack_group = [&](int64_t g, int64_t g1, int64_t k0, int64_t k) {
    if (p.a_by_k) return pack_panels_by_k<P>(p.a, p.m, g, g1 - g, k0, k, panels, panel_stride);
    for (int64_t m = g; m < g1; m += kTileRows)
      pack_panel_rows<P>(p.a, m, int(std::min<int64_t>(kTileRows, g1 - m)), k0, k, panels + (m - g) / kTileRows * panel_stride);
  };
  if (once) pack_group(m0, m1, 0, p.k);

  for (int64_t b0 = n0; b0 < n1; b0 += width) {
    const int64_t b1 = std::min(n1, b0 + width);
    for (int64_t k0 = 0; k0 == 0 || k0 < p.k; k0 += std::max<int64_t>(1, piece)) {
      const int64_t k = std::min(piece, p.k - k0), words = words_of<P>(k);
      const bool first = k0 == 0, last = k0 + k >= p.k;
      if (p.b_by_k) pack_slivers_by_k<P>(p.b, p.n, b0, b1, k0, k, slivers, sliver_size);
      else for (int64_t n = b0; n < b1; n += tile) pack_sliver_rows<P>(p.b, p.n, n, k0, k, slivers + (n - b0) / tile * sliver_size);
      for (int64_t g = m0; g < m1; g += kGroupRows) {
        const int64_t g1 = std::min(m1, g + kGroupRows), next_rows = std::min(kGroupRows, m1 - g1);
        if (!once) pack_group(g, g1, k0, k);
        const Acc* panel = once ? panels + (g - m0) / kTileRows * panel_stride + words_of<P>(k0) * kPanelRows : panels;
        for (int64_t m = g; m < g1; m += kTileRows, panel += panel_stride) {
          const int r = int(std::min<int64_t>(kTileRows, g1 - m));
          // The next panels come from memory: ask for them while there is arithmetic to do.
          int64_t part = (m - g) / kTileRows * ((b1 - b0 + tile - 1) / tile);
          for (int64_t n = b0; n < b1; n += tile, ++part) {
            if (!once && next_rows > 0) prefetch_panels<P>(p, g1, next_rows, k0, k, part, (b1 - b0 + tile - 1) / tile * ((g1 - g + kTileRows - 1) / kTileRows));
            const int64_t count = std::min(tile, n1 - n);
            const bool direct = c && count == tile;
            Acc* out = direct ? c + m * ldc + n : pieces ? sums + (c ? (m - m0) * tile : (m - m0) * width + (n - b0)) : sums;
            const int64_t stride = direct ? ldc : pieces && !c ? width : tile;
            if (!direct && first && accumulate)
              for (int i = 0; i < r; ++i) std::copy_n(c + (m + i) * ldc + n, count, out + i * stride);
            kernels.rows[r - 1](words, panel, slivers + (n - b0) / tile * sliver_size, out, stride, accumulate || !first);
            if (last) finish(m, r, n, count, out, stride);
          }
        }
      }
    }
  }
}

}  // namespace libmoe::cpu::LIBMOE_ISA

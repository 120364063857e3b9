#pragma once
// What every matrix-product kernel shares, tensor cores or not: operands, and which tile of which product a block computes next.
#include "cuda/core/convert.h"
#include "cuda/core/expert_rows.h"

namespace libmoe::cuda {

// A stored matrix per product. Rows may be gathered: row r is stored at index[r].
template <class T> struct Operand {
  const T* data;
  int64_t ld;             // elements from row to row
  int64_t stride;         // elements from product to product
  const int32_t* index;   // or null
};

// Which sizes the device alone knows: none; the rows of the products (experts); the inner sizes (weight gradients of experts).
enum class Ragged : int { none, rows, inner };

struct Schedule {
  Ragged ragged = Ragged::none;
  int m = 0, n = 0, k = 0;          // of one product; m with ragged rows and k with ragged inner sizes unused
  int groups = 1;                   // products
  int m_tiles = 0, n_tiles = 0;     // of one product; m_tiles unused with ragged rows
  int n_step = 0;                   // columns from tile to tile
  int m_step = 0;
  int pair = 0;                     // b stored [n, k] holds in row pair + j what belongs to its row j: a tile takes half its columns from either
  const int32_t* offsets = nullptr;
  const int32_t* order = nullptr;
  const int32_t* tile_count = nullptr;
  const RowTile* tiles = nullptr;
};

struct Tile {
  int group;
  int m, rows;       // first row, of a and c, and how many
  int n;             // first column
  int k_begin, k_end;
};

// Blocks that run at the same time take tiles of kPanel rows of tiles, column after column, so that the L2 keeps the panels of both operands.
constexpr int kPanel = 8;

__device__ inline int64_t tiles_of(const Schedule& s) {
  return s.ragged == Ragged::rows ? int64_t(*s.tile_count) * s.n_tiles : int64_t(s.groups) * s.m_tiles * s.n_tiles;
}

__device__ inline Tile tile_at(const Schedule& s, int64_t index) {
  Tile t;
  int m_tiles = s.m_tiles, rest;
  t.group = 0;
  if (s.ragged == Ragged::rows) {
    m_tiles = *s.tile_count;
    const int64_t panel = index / (int64_t(kPanel) * s.n_tiles);
    rest = int(index - panel * kPanel * s.n_tiles);
    const int height = min(kPanel, m_tiles - int(panel) * kPanel), column = rest / height;
    const RowTile row = s.tiles[panel * kPanel + rest - column * height];
    t.group = row.expert;
    t.m = row.first;
    t.rows = row.rows;
    t.n = column * s.n_step;
    t.k_begin = 0;
    t.k_end = s.k;
    return t;
  }
  const int64_t each = int64_t(m_tiles) * s.n_tiles;
  t.group = int(index / each);
  const int64_t within = index - t.group * each, panel = within / (int64_t(kPanel) * s.n_tiles);
  rest = int(within - panel * kPanel * s.n_tiles);
  const int height = min(kPanel, m_tiles - int(panel) * kPanel), column = rest / height;
  t.m = (int(panel) * kPanel + rest - column * height) * s.m_step;
  t.rows = min(s.m_step, s.m - t.m);
  t.n = column * s.n_step;
  t.k_begin = 0;
  t.k_end = s.k;
  if (s.ragged == Ragged::inner) {
    t.group = s.order[t.group];
    t.k_begin = s.offsets[t.group];
    t.k_end = s.offsets[t.group + 1];
  }
  return t;
}

// The stored row of b, [n, k], that is column `j` of the N of a tile from column n on; -1 outside.
template <int N> __device__ inline int column_row(const Schedule& s, int n, int j) {
  const bool second = s.pair > 0 && j >= N / 2;
  const int column = n + (second ? j - N / 2 : j);
  return column >= s.n ? -1 : second ? s.pair + column : column;
}

// A tile's sums in shared memory between the products and the epilogue, [rows][N]; columns swapped by eights so that the fragments of mma do not collide.
template <class A, int N> struct Staged {
  A* data;
  static __device__ int at(int row, int column) { return row * N + (column ^ ((row & 3) << 3)); }
  // Eight neighbouring columns, from column 8 c on.
  __device__ void read(int row, int c, A (&v)[8]) const {
    const A* from = data + at(row, c * 8);
    using Vector = Pack<A, 16 / int(sizeof(A))>;
#pragma unroll
    for (int i = 0; i < 8 / int(16 / sizeof(A)); ++i) *reinterpret_cast<Vector*>(v + i * int(16 / sizeof(A))) = reinterpret_cast<const Vector*>(from)[i];
  }
};

// Eight elements to and from global memory, at once when `whole`; elements from `count` on are left alone, or read as zeros.
template <class T, class A> __device__ inline void load_eight(const T* from, int count, bool whole, A (&v)[8]) {
  if (whole && count >= 8) {
    constexpr int kEach = 16 / int(sizeof(T)) > 8 ? 8 : 16 / int(sizeof(T));
#pragma unroll
    for (int i = 0; i < 8 / kEach; ++i) {
      const Pack<T, kEach> p = reinterpret_cast<const Pack<T, kEach>*>(from)[i];
#pragma unroll
      for (int j = 0; j < kEach; ++j) v[i * kEach + j] = load(p.at[j]);
    }
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = j < count ? load(from[j]) : A(0);
  }
}
template <class T, class A> __device__ inline void store_eight(T* to, int count, bool whole, const A (&v)[8]) {
  if (whole && count >= 8) {
    constexpr int kEach = 16 / int(sizeof(T)) > 8 ? 8 : 16 / int(sizeof(T));
#pragma unroll
    for (int i = 0; i < 8 / kEach; ++i) {
      Pack<T, kEach> p;
#pragma unroll
      for (int j = 0; j < kEach; ++j) p.at[j] = store<T>(v[i * kEach + j]);
      reinterpret_cast<Pack<T, kEach>*>(to)[i] = p;
    }
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j)
      if (j < count) to[j] = store<T>(v[j]);
  }
}

}  // namespace libmoe::cuda

#pragma once
// Row indices: their check, and their inverse (which positions name a row), for shape, embedding and loss.
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"
#include "core/thread_pool.h"

namespace libmoe::cpu::LIBMOE_ISA {

// Throws ERR_LIBMOE_ARGUMENT naming the first of n indices outside [low, rows).
inline void check_rows(const int32_t* index, int64_t n, int64_t low, int64_t rows, const char* what) {
  bool bad = false;
  for (int64_t i = 0; i < n; ++i) bad |= (index[i] < low) | (index[i] >= rows);
  if (!bad) return;
  int64_t i = 0;
  while (index[i] >= low && index[i] < rows) ++i;
  fail("ERR_LIBMOE_ARGUMENT", std::string(what) + " must be from " + std::to_string(low) + " to " + std::to_string(rows - 1) + ", got " + std::to_string(index[i]) +
                                  " at position " + std::to_string(i));
}

// The positions that name each row, ascending, by a counting sort: those of the k-th named row are positions[begin[k] .. begin[k + 1]).
struct RowGroups {
  std::vector<int32_t> rows;       // named rows, ascending
  std::vector<int64_t> begin;      // rows.size() + 1
  std::vector<int32_t> positions;  // n
};
inline RowGroups group_rows(const int32_t* index, int64_t n, int64_t rows) {
  RowGroups g;
  std::vector<int32_t> next(size_t(rows), 0);
  for (int64_t i = 0; i < n; ++i) ++next[size_t(index[i])];
  g.begin.push_back(0);
  int32_t at = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t count = next[size_t(r)];
    if (count == 0) continue;
    next[size_t(r)] = at;
    at += count;
    g.rows.push_back(int32_t(r));
    g.begin.push_back(at);
  }
  g.positions.resize(size_t(n));
  for (int64_t i = 0; i < n; ++i) g.positions[size_t(next[size_t(index[i])]++)] = int32_t(i);
  return g;
}

// y[i, :] = x[index[i], :], rows of `row_bytes` bytes.
inline void gather_row_bytes(const char* x, const int32_t* index, int64_t n, size_t row_bytes, char* y) {
  if (row_bytes == 0) return;
  parallel_ranges(n, int64_t(1 + 65536 / row_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memcpy(y + size_t(i) * row_bytes, x + size_t(index[i]) * row_bytes, row_bytes);
  });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

#pragma once
// From what an operation asks for (core/tensor_core.h) to operands, schedule and epilogue of one product kernel.
#include <string>

#include "cuda/core/product_epilogue.h"

namespace libmoe::cuda {

template <class T, class E> struct Product {
  Operand<T> a, b;
  bool a_by_k, b_by_k;      // stored [k, m], [k, n]; else [m, k], [n, k]
  Schedule schedule;
  E epilogue;
  int64_t row_bound;        // ragged rows: tiles of rows at most
};

// Whether a matrix, or what is null, can be moved so many bytes at a time: its address, and the distances a and b in elements.
template <int kBytes, class T> inline bool pieces_of(const T* p, int64_t a = 0, int64_t b = 0) {
  constexpr int64_t each = kBytes / int64_t(sizeof(T));
  return p == nullptr || (aligned_to(p, kBytes) && a % each == 0 && b % each == 0);
}
template <int kBytes, class T> inline bool pieces_of(const Operand<T>& o) { return pieces_of<kBytes>(o.data, o.ld, o.stride); }
template <class T> inline bool pieces_of_sixteen(const void* p, int64_t a = 0, int64_t b = 0) { return pieces_of<16>(static_cast<const T*>(p), a, b); }
template <class T> inline bool pieces_of_sixteen(const Operand<T>& o) { return pieces_of<16>(o); }

// Indices within one product are of 32 bits.
inline int narrow(int64_t size) {
  if (size > 0x7fffff00ll) fail("ERR_LIBMOE_SHAPE", "a matrix product on CUDA takes sizes below 2^31, got " + std::to_string(size));
  return int(size);
}

template <class T> Product<T, StoreEpilogue<T>> shaped(const DenseProduct<T>& p) {
  Product<T, StoreEpilogue<T>> r{};
  r.a = {p.a, p.transpose_a ? p.m : p.k, p.m * p.k, nullptr};
  r.b = {p.b, p.transpose_b ? p.k : p.n, p.n * p.k, nullptr};
  r.a_by_k = p.transpose_a;
  r.b_by_k = !p.transpose_b;
  r.schedule.m = narrow(p.m);
  r.schedule.n = narrow(p.n);
  r.schedule.k = narrow(p.k);
  r.schedule.groups = narrow(p.batch);
  const bool whole = p.wide ? pieces_of_sixteen<float>(p.c, p.n) : pieces_of_sixteen<T>(p.c, p.n);
  r.epilogue = {p.c, p.n, p.m * p.n, p.bias, 0, int(p.n), p.wide, p.accumulate, whole && pieces_of_sixteen<T>(p.bias)};
  return r;
}

template <class T, class E, class W> void by_row_tiles(Product<T, E>& r, const ExpertRows<W>& rows) {
  r.schedule.ragged = Ragged::rows;
  r.schedule.groups = rows.experts;
  r.schedule.tile_count = rows.tile_count;
  r.schedule.tiles = rows.tiles;
  r.schedule.m_step = rows.height;
  r.row_bound = rows.tile_bound;
}

template <class T, class W> Product<T, UpEpilogue<T>> shaped(const ExpertRows<W>& rows, const UpProduct<T>& p) {
  Product<T, UpEpilogue<T>> r{};
  const int64_t full = p.gated ? 2 * p.width : p.width;
  r.a = {p.x, p.d, 0, rows.token};
  r.b = {p.up, p.d, full * p.d, nullptr};
  by_row_tiles(r, rows);
  r.schedule.n = narrow(p.width);
  r.schedule.k = narrow(p.d);
  r.schedule.pair = p.gated ? int(p.width) : 0;
  narrow(full);
  const bool whole = pieces_of_sixteen<T>(p.z, p.width) && pieces_of_sixteen<T>(p.hidden, p.width) && pieces_of_sixteen<T>(p.bias, p.width);
  r.epilogue = {p.bias, p.z, p.hidden, int(p.width), int(full), p.gated, whole, p.activation};
  return r;
}

template <class T, class W> Product<T, StoreEpilogue<T>> shaped(const ExpertRows<W>& rows, const DownProduct<T>& p) {
  Product<T, StoreEpilogue<T>> r{};
  r.a = {p.hidden, p.width, 0, nullptr};
  r.b = {p.down, p.width, p.d * p.width, nullptr};
  by_row_tiles(r, rows);
  r.schedule.n = narrow(p.d);
  r.schedule.k = narrow(p.width);
  r.epilogue = {p.y, p.d, 0, p.bias, p.d, int(p.d), false, false, pieces_of_sixteen<T>(p.y, p.d) && pieces_of_sixteen<T>(p.bias, p.d)};
  return r;
}

template <class T, class W> Product<T, SlopeEpilogue<T>> shaped(const ExpertRows<W>& rows, const SlopeProduct<T>& p) {
  Product<T, SlopeEpilogue<T>> r{};
  const int64_t full = p.gated ? 2 * p.width : p.width;
  r.a = {p.d_out, p.d, 0, rows.token};
  r.b = {p.down, p.width, p.d * p.width, nullptr};
  r.b_by_k = true;
  by_row_tiles(r, rows);
  r.schedule.n = narrow(p.width);
  r.schedule.k = narrow(p.d);
  const bool whole = pieces_of_sixteen<T>(p.z, p.width) && pieces_of_sixteen<T>(p.dz, p.width) && pieces_of_sixteen<T>(p.weighted, p.width);
  r.epilogue = {p.z, p.dz, p.weighted, p.parts, rows.weight, rows.slots, int(p.width), narrow(full), p.gated, whole, p.activation};
  return r;
}

template <class T, class W> Product<T, StoreEpilogue<T>> shaped(const ExpertRows<W>& rows, const InputProduct<T>& p) {
  Product<T, StoreEpilogue<T>> r{};
  r.a = {p.dz, p.full, 0, nullptr};
  r.b = {p.up, p.d, p.full * p.d, nullptr};
  r.b_by_k = true;
  by_row_tiles(r, rows);
  r.schedule.n = narrow(p.d);
  r.schedule.k = narrow(p.full);
  r.epilogue = {p.dx, p.d, 0, nullptr, 0, int(p.d), false, false, pieces_of_sixteen<T>(p.dx, p.d)};
  return r;
}

template <class T, class W> Product<T, StoreEpilogue<T>> shaped(const ExpertRows<W>& rows, const WeightProduct<T>& p) {
  Product<T, StoreEpilogue<T>> r{};
  r.a = {p.left, p.m, 0, p.gather_left ? rows.token : nullptr};
  r.b = {p.right, p.n, 0, p.gather_right ? rows.token : nullptr};
  r.a_by_k = r.b_by_k = true;
  r.schedule.ragged = Ragged::inner;
  r.schedule.groups = rows.experts;
  r.schedule.m = narrow(p.m);
  r.schedule.n = narrow(p.n);
  r.schedule.offsets = rows.offsets;
  r.schedule.order = rows.order;
  r.epilogue = {p.out, p.n, p.m * p.n, nullptr, 0, int(p.n), true, p.add, pieces_of_sixteen<Accumulator<T>>(p.out, p.n)};
  return r;
}

// Cuts the product into tiles of m_step by N sums (N / 2 columns of either half where columns come in pairs). Returns their number at most.
template <class T, class E> int64_t cut(Product<T, E>& p, int m_step, int n) {
  Schedule& s = p.schedule;
  s.n_step = s.pair ? n / 2 : n;
  s.n_tiles = int(blocks_for(s.n, s.n_step));
  if (s.ragged == Ragged::rows) return p.row_bound * s.n_tiles;
  s.m_step = m_step;
  s.m_tiles = int(blocks_for(s.m, m_step));
  return int64_t(s.groups) * s.m_tiles * s.n_tiles;
}

}  // namespace libmoe::cuda

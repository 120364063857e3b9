// Bound by memory: each element is read and written once. A strided copy merges its axes and becomes row copies, or tiles of 32 x 32 elements when
// source and destination run along different axes, so that both sides use whole cache lines.
#include "ops/elementwise.h"
#include "ops/shape.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/pooled.h"
#include "cpu/row_index.h"
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {

extern const ElementwiseOps elementwise_ops;

namespace {

constexpr int64_t kPiece = 16384;
constexpr int64_t kTile = 32;

// Axes of size one dropped, neighbours that both sides walk as one merged.
StridedCopy merged(const StridedCopy& box) {
  StridedCopy m;
  m.from_offset = box.from_offset;
  m.to_offset = box.to_offset;
  for (int i = 0; i < box.shape.rank; ++i) {
    const int64_t size = box.shape.dims[i];
    if (size == 1) continue;
    const int last = m.shape.rank - 1;
    if (last >= 0 && m.from[last] == box.from[i] * size && m.to[last] == box.to[i] * size) {
      m.shape.dims[last] *= size;
      m.from[last] = box.from[i];
      m.to[last] = box.to[i];
    } else {
      m.shape.dims[m.shape.rank] = size;
      m.from[m.shape.rank] = box.from[i];
      m.to[m.shape.rank++] = box.to[i];
    }
  }
  if (m.shape.rank == 0) {
    m.shape.dims[m.shape.rank++] = 1;
    m.from[0] = m.to[0] = 1;
  }
  return m;
}

// Calls body(from, to) with the offsets of item `i` of the axes listed in `axes`.
struct Walk {
  const StridedCopy& box;
  int axes[kMaxRank];
  int count = 0;
  int64_t items() const {
    int64_t n = 1;
    for (int i = 0; i < count; ++i) n *= box.shape.dims[axes[i]];
    return n;
  }
  void offsets(int64_t item, int64_t& from, int64_t& to) const {
    from = box.from_offset;
    to = box.to_offset;
    for (int i = count - 1; i >= 0; --i) {
      const int a = axes[i];
      from += item % box.shape.dims[a] * box.from[a];
      to += item % box.shape.dims[a] * box.to[a];
      item /= box.shape.dims[a];
    }
  }
};

template <class T> void copy_typed(const T* x, T* y, const StridedCopy& box) {
  const int inner = box.shape.rank - 1;
  int other = -1;  // an axis along which the source is contiguous while the destination is not
  if (box.from[inner] != 1 && box.from[inner] != 0)
    for (int i = 0; i < inner; ++i)
      if (box.from[i] == 1) other = i;
  Walk walk{box, {}, 0};
  for (int i = 0; i < inner; ++i)
    if (i != other) walk.axes[walk.count++] = i;
  const int64_t n = box.shape.dims[inner], fs = box.from[inner], ts = box.to[inner];
  if (other >= 0) {
    const int64_t m = box.shape.dims[other], tiles_m = (m + kTile - 1) / kTile, fo = box.from[other], to_other = box.to[other];
    parallel_ranges(walk.items() * tiles_m, std::max<int64_t>(1, kPiece / (kTile * n)), [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        int64_t from, to;
        walk.offsets(item / tiles_m, from, to);
        const int64_t a0 = item % tiles_m * kTile, a1 = std::min(m, a0 + kTile);
        for (int64_t b0 = 0; b0 < n; b0 += kTile) {
          const int64_t b1 = std::min(n, b0 + kTile);
          for (int64_t a = a0; a < a1; ++a)
            for (int64_t b = b0; b < b1; ++b) y[to + a * to_other + b * ts] = x[from + a * fo + b * fs];
        }
      }
    });
    return;
  }
  const auto row = [&](int64_t from, int64_t to, int64_t count) {
    const T* p = x + from;
    T* q = y + to;
    if (fs == 1 && ts == 1) std::memcpy(q, p, size_t(count) * sizeof(T));
    else if (fs == 0 && ts == 1) std::fill(q, q + count, *p);
    else
      for (int64_t i = 0; i < count; ++i) q[i * ts] = p[i * fs];
  };
  const int64_t rows = walk.items();
  if (rows == 1) {
    parallel_ranges(n, kPiece * 4, [&](int64_t begin, int64_t end) { row(box.from_offset + begin * fs, box.to_offset + begin * ts, end - begin); });
    return;
  }
  parallel_ranges(rows, std::max<int64_t>(1, kPiece / n), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t from, to;
      walk.offsets(r, from, to);
      row(from, to, n);
    }
  });
}

void copy_strided(const TensorView& x, const TensorView& y, const StridedCopy& box) {
  if (box.shape.elements() == 0) return;
  const StridedCopy m = merged(box);
  switch (size_of(x.dtype)) {
    case 1: return copy_typed(x.as<const uint8_t>(), y.as<uint8_t>(), m);
    case 2: return copy_typed(x.as<const uint16_t>(), y.as<uint16_t>(), m);
    case 4: return copy_typed(x.as<const uint32_t>(), y.as<uint32_t>(), m);
    default: return copy_typed(x.as<const uint64_t>(), y.as<uint64_t>(), m);
  }
}

void read_host(const HostBox& x, const TensorView& y) {
  const int64_t n = y.elements();
  if (n == 0) return;
  const int64_t size = int64_t(size_of(x.dtype));
  StridedCopy box;
  box.shape = y.shape;
  box.from = x.strides;
  int64_t row_major = 1, span = 1;
  for (int i = y.shape.rank - 1; i >= 0; --i) {
    box.to[i] = row_major;
    row_major *= y.shape.dims[i];
    span += (y.shape.dims[i] - 1) * x.strides[i];
  }
  const StridedCopy m = merged(box);
  const bool in_order = m.shape.rank == 1 && m.from[0] == 1, as_is = x.dtype == y.dtype;
  const auto copy_bytes = [](const char* from, char* to, int64_t bytes) {
    parallel_ranges(bytes, int64_t(1) << 20, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, size_t(end - begin)); });
  };
  if (in_order && as_is) return copy_bytes(x.data, y.as<char>(), n * size);

  const bool aligned = reinterpret_cast<uintptr_t>(x.data) % uintptr_t(size) == 0;
  const Pooled<char> moved(aligned ? 0 : span * size), ordered(in_order || as_is ? 0 : n * size);
  if (!aligned) copy_bytes(x.data, moved, span * size);
  TensorView from{const_cast<char*>(aligned ? x.data : moved.get()), x.dtype, y.device, y.shape};  // only read
  if (!in_order) {
    const TensorView to{as_is ? y.data : ordered.get(), x.dtype, y.device, y.shape};
    copy_strided(from, to, box);
    from = to;
  }
  if (!as_is) elementwise_ops.cast(from, y);
}

void gather_rows(const TensorView& x, const TensorView& index, const TensorView& y) {
  check_rows(index.as<int32_t>(), index.elements(), 0, x.shape[0], "row index");
  gather_row_bytes(x.as<char>(), index.as<int32_t>(), index.elements(), size_t(x.shape[1]) * size_of(x.dtype), y.as<char>());
}

void scatter_add_rows(const TensorView& x, const TensorView& index, const TensorView& y) {
  const int64_t n = x.shape[0], width = x.shape[1];
  check_rows(index.as<int32_t>(), n, 0, y.shape[0], "row index");
  if (n == 0 || width == 0) return;
  // One owner per destination row and block of columns: a row that many positions name is still spread over the threads.
  constexpr int64_t kColumns = 256;
  const RowGroups groups = group_rows(index.as<int32_t>(), n, y.shape[0]);
  const int64_t blocks = (width + kColumns - 1) / kColumns;
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    parallel_ranges(int64_t(groups.rows.size()) * blocks, std::max<int64_t>(1, kPiece / 4 / std::min(width, kColumns)), [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const size_t k = size_t(item / blocks);
        const int64_t column = item % blocks * kColumns, columns = std::min(kColumns, width - column);
        T* out = y.as<T>() + groups.rows[k] * width + column;
        const T* in = x.as<T>() + column;
        for_vectors<A>(columns, [&](int64_t i, int count) {
          Vec<A> sum = load_count(out + i, count);
          for (int64_t p = groups.begin[k]; p < groups.begin[k + 1]; ++p) sum += load_count(in + groups.positions[size_t(p)] * width + i, count);
          store_count(out + i, sum, count);
        });
      }
    });
  });
}

}  // namespace

extern const ShapeOps shape_ops;
const ShapeOps shape_ops = {copy_strided, read_host, gather_rows, scatter_add_rows};

}  // namespace libmoe::cpu::LIBMOE_ISA

// Bound by memory: each byte of the box is read once and written once (floor: 2 bytes moved per byte copied). The axes of a box are put in the order of the
// destination and merged; then threads take pieces of up to 16 bytes that are contiguous on both sides, or pieces of the destination that they collect, or, where
// source and destination run along different axes, blocks turn tiles through shared memory, so that both sides use whole sectors.
#include "ops/shape.h"

#include "core/dispatch.h"
#include "cuda/core/keyed_sums.h"
#include "cuda/core/upload.h"
#include "ops/elementwise.h"

namespace libmoe::cuda {

extern const ElementwiseOps elementwise_ops;

namespace {

constexpr int kThreads = 256;
constexpr int64_t kStaged = int64_t(64) << 20;  // bytes of host memory that are on their way through the device at a time

// Axes in the order of the destination, those that both sides walk as one merged. Offsets and strides in units of `unit` bytes.
struct Walk {
  int rank = 0;
  int64_t sizes[kMaxRank]{}, from[kMaxRank]{}, to[kMaxRank]{};
  int64_t from_offset = 0, to_offset = 0;

  int64_t items() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= sizes[i];
    return n;
  }
};

Walk merged(const StridedCopy& box) {
  int order[kMaxRank], axes = 0;
  for (int i = 0; i < box.shape.rank; ++i)
    if (box.shape.dims[i] != 1) order[axes++] = i;
  std::stable_sort(order, order + axes, [&](int a, int b) { return box.to[a] > box.to[b]; });
  Walk w;
  w.from_offset = box.from_offset;
  w.to_offset = box.to_offset;
  for (int i = 0; i < axes; ++i) {
    const int64_t size = box.shape.dims[order[i]], from = box.from[order[i]], to = box.to[order[i]];
    const int last = w.rank - 1;
    if (last >= 0 && w.from[last] == from * size && w.to[last] == to * size) {
      w.sizes[last] *= size;
      w.from[last] = from;
      w.to[last] = to;
    } else {
      w.sizes[w.rank] = size;
      w.from[w.rank] = from;
      w.to[w.rank++] = to;
    }
  }
  if (w.rank == 0) {
    w.rank = 1;
    w.sizes[0] = w.from[0] = w.to[0] = 1;
  }
  return w;
}

template <class I> __device__ inline void offsets(const Walk& w, I item, int64_t& from, int64_t& to) {
  from = w.from_offset;
  to = w.to_offset;
#pragma unroll
  for (int axis = kMaxRank - 1; axis >= 0; --axis) {
    if (axis >= w.rank) continue;
    const I size = I(w.sizes[axis]), at = item % size;
    item /= size;
    from += int64_t(at) * w.from[axis];
    to += int64_t(at) * w.to[axis];
  }
}

// A piece: P elements, contiguous in the destination and `step` apart in the source.
template <int P, class I, class T> __global__ void __launch_bounds__(kThreads) pieces_kernel(int64_t n, Walk w, int64_t step, const T* x, T* y) {
  constexpr int kAhead = P * sizeof(T) >= 16 ? 2 : 4;
  const int64_t stride = int64_t(gridDim.x) * kThreads;
  for (int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x; first < n; first += stride * kAhead) {
    Pack<T, P> piece[kAhead];
    int64_t to[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (first + k * stride >= n) continue;
      int64_t from;
      offsets(w, I(first + k * stride), from, to[k]);
#pragma unroll
      for (int j = 0; j < P; ++j) piece[k].at[j] = x[from + j * step];
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (first + k * stride < n) *reinterpret_cast<Pack<T, P>*>(y + to[k]) = piece[k];
  }
}

// The walk's axes are the tiles': `down` runs along the source, `across` along the destination.
struct Turn {
  int64_t down = 0, across = 0;            // sizes
  int64_t from_across = 0, to_down = 0;    // the strides that are not 1
};
template <class T> constexpr int kSide = sizeof(T) <= 2 ? 64 : 32;

template <class T> __global__ void __launch_bounds__(kThreads) turn_kernel(int64_t tiles, Walk rest, Turn turn, const T* x, T* y) {
  constexpr int S = kSide<T>, kPad = sizeof(T) < 4 ? 4 / sizeof(T) : 1;
  __shared__ T tile[S][S + kPad];
  const int column = threadIdx.x % S, row = threadIdx.x / S;
  const int64_t tiles_down = (turn.down + S - 1) / S, tiles_across = (turn.across + S - 1) / S;
  for (int64_t item = blockIdx.x; item < tiles; item += gridDim.x) {
    int64_t from, to;
    offsets(rest, item / (tiles_down * tiles_across), from, to);
    const int64_t down = item / tiles_across % tiles_down * S, across = item % tiles_across * S;
#pragma unroll
    for (int r = 0; r < S; r += kThreads / S)
      if (across + r + row < turn.across && down + column < turn.down) tile[r + row][column] = x[from + (across + r + row) * turn.from_across + down + column];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < S; r += kThreads / S)
      if (down + r + row < turn.down && across + column < turn.across) y[to + (down + r + row) * turn.to_down + across + column] = tile[column][r + row];
    __syncthreads();
  }
}

template <int P, class T> void copy_pieces(const DeviceState& state, Walk w, int64_t step, const T* x, T* y) {
  const int64_t n = w.items();
  const unsigned grid = grid_for(state, n, kThreads);
  if (n < int64_t(1) << 31) launch(state, pieces_kernel<P, uint32_t, T>, grid, kThreads, 0, n, w, step, x, y);
  else launch(state, pieces_kernel<P, int64_t, T>, grid, kThreads, 0, n, w, step, x, y);
}

template <class T> void copy_typed(const DeviceState& state, Walk w, const T* x, T* y) {
  const int inner = w.rank - 1;
  int other = -1;  // an axis along which the source is contiguous while the destination is not
  if (w.to[inner] == 1 && w.from[inner] > 1)
    for (int i = 0; i < inner; ++i)
      if (w.from[i] == 1) other = i;
  if (other >= 0 && w.sizes[inner] > 1) {
    Turn turn{w.sizes[other], w.sizes[inner], w.from[inner], w.to[other]};
    Walk rest;
    rest.from_offset = w.from_offset;
    rest.to_offset = w.to_offset;
    for (int i = 0; i < inner; ++i) {
      if (i == other) continue;
      rest.sizes[rest.rank] = w.sizes[i];
      rest.from[rest.rank] = w.from[i];
      rest.to[rest.rank++] = w.to[i];
    }
    const int64_t tiles = rest.items() * blocks_for(turn.down, kSide<T>) * blocks_for(turn.across, kSide<T>);
    return launch(state, turn_kernel<T>, grid_for(state, tiles, 1), kThreads, 0, tiles, rest, turn, x, y);
  }
  // 16 bytes of the destination at a time where it allows that.
  constexpr int P = kPack<T>;
  bool whole = w.to[inner] == 1 && w.sizes[inner] % P == 0 && w.to_offset % P == 0 && aligned_to(y, 16);
  for (int i = 0; i < inner; ++i) whole = whole && w.to[i] % P == 0;
  if (!whole) return copy_pieces<1>(state, w, 0, x, y);
  const int64_t step = w.from[inner];
  w.sizes[inner] /= P;
  w.from[inner] *= P;
  w.to[inner] = P;
  copy_pieces<P>(state, w, step, x, y);
}

// Where both sides are contiguous, the largest unit that divides every address.
void copy_strided(const TensorView& x, const TensorView& y, const StridedCopy& box) {
  if (box.shape.elements() == 0) return;
  const DeviceState& state = state_of(y.device);
  Walk w = merged(box);
  const int inner = w.rank - 1;
  int64_t size = int64_t(size_of(x.dtype)), unit = size;
  if (w.from[inner] == 1 && w.to[inner] == 1) {
    const auto fits = [&](int64_t bytes) {
      const int64_t per = bytes / size;
      bool all = w.sizes[inner] % per == 0 && w.from_offset % per == 0 && w.to_offset % per == 0;
      all = all && aligned_to(x.data, size_t(bytes)) && aligned_to(y.data, size_t(bytes));
      for (int i = 0; i < inner; ++i) all = all && w.from[i] % per == 0 && w.to[i] % per == 0;
      return all;
    };
    while (unit < 16 && fits(unit * 2)) unit *= 2;
    const int64_t per = unit / size;
    w.sizes[inner] /= per;
    w.from_offset /= per;
    w.to_offset /= per;
    for (int i = 0; i < inner; ++i) {
      w.from[i] /= per;
      w.to[i] /= per;
    }
  }
  switch (unit) {
    case 1: return copy_typed(state, w, x.as<const uint8_t>(), y.as<uint8_t>());
    case 2: return copy_typed(state, w, x.as<const uint16_t>(), y.as<uint16_t>());
    case 4: return copy_typed(state, w, x.as<const uint32_t>(), y.as<uint32_t>());
    case 8: return copy_typed(state, w, x.as<const uint64_t>(), y.as<uint64_t>());
    default: return copy_pieces<1>(state, w, 0, x.as<const uint4>(), y.as<uint4>());
  }
}

// Raw bytes go to the device, where they are put in order and converted; long boxes in several parts along their first axis, so that no more than kStaged bytes
// lie aside (a box whose first axis is not its widest stride goes at once).
void read_host(const HostBox& x, const TensorView& y) {
  if (y.elements() == 0) return;
  DeviceState& state = state_of(y.device);
  const int64_t size = int64_t(size_of(x.dtype));
  StridedCopy box;
  box.shape = y.shape;
  box.from = x.strides;
  int64_t row_major = 1;
  for (int i = y.shape.rank - 1; i >= 0; --i) {
    box.to[i] = row_major;
    row_major *= y.shape.dims[i];
  }
  const Walk w = merged(box);
  const bool in_order = w.rank == 1 && w.from[0] == 1, as_is = x.dtype == y.dtype;
  // Through page-locked memory: nothing of the file is needed when this returns, so that the caller may unmap it.
  const auto upload = [&](void* to, const char* from, int64_t bytes) { enqueue_upload(state, to, from, size_t(bytes)); };
  if (in_order && as_is) return upload(y.data, x.data, y.elements() * size);

  int64_t inner_span = 1;  // elements of the source that one step of the first axis covers
  for (int i = 1; i < w.rank; ++i) inner_span += (w.sizes[i] - 1) * w.from[i];
  const int64_t most = kStaged / size, step = std::max<int64_t>(1, w.from[0]);
  const int64_t part = inner_span <= most && inner_span <= step ? std::min(w.sizes[0], (most - inner_span) / step + 1) : w.sizes[0];
  const int64_t each = y.elements() / w.sizes[0];  // elements of y per step of the first axis
  const Scratch raw(state, size_t(((part - 1) * w.from[0] + inner_span) * size)), ordered(state, in_order || as_is ? 0 : size_t(part * each * size));
  for (int64_t at = 0; at < w.sizes[0]; at += part) {
    const int64_t count = std::min(part, w.sizes[0] - at);
    upload(raw.as<void>(), x.data + at * w.from[0] * size, ((count - 1) * w.from[0] + inner_span) * size);
    TensorView to{y.as<char>() + at * each * int64_t(size_of(y.dtype)), y.dtype, y.device, {}};
    to.shape.rank = w.rank;
    for (int i = 0; i < w.rank; ++i) to.shape.dims[i] = i == 0 ? count : w.sizes[i];
    TensorView from{raw.as<void>(), x.dtype, y.device, to.shape};
    if (!in_order) {
      StridedCopy piece;
      piece.shape = to.shape;
      for (int i = 0; i < w.rank; ++i) {
        piece.from[i] = w.from[i];
        piece.to[i] = w.to[i];
      }
      const TensorView target{as_is ? to.data : ordered.as<void>(), x.dtype, y.device, to.shape};
      copy_strided(from, target, piece);
      from = target;
    }
    if (!as_is) elementwise_ops.cast(from, to);
  }
}

void gather_rows(const TensorView& x, const TensorView& index, const TensorView& y) {
  gather_row_bytes(state_of(y.device), x.data, index.as<const int32_t>(), index.elements(), x.shape[0], x.shape[1] * int64_t(size_of(x.dtype)), y.data, "row index");
}

void scatter_add_rows(const TensorView& x, const TensorView& index, const TensorView& y) {
  with_float(x.dtype, [&]<class T>() {
    sum_rows(state_of(y.device), index.as<const int32_t>(), x.shape[0], y.shape[0], x.shape[1], x.as<const T>(), y.as<T>(), RowSum::onto, "row index");
  });
}

}  // namespace

extern const ShapeOps shape_ops;
const ShapeOps shape_ops = {copy_strided, read_host, gather_rows, scatter_add_rows};

}  // namespace libmoe::cuda

// Bound by memory where images grow (floor: x read, y written once), by a multiply-add per tap and output where they shrink. A block has the outputs of a few columns
// of one or more output rows: for each row it mixes the input rows into one stretch of shared memory, from which every thread then gathers one output. The gradient is
// the same with the matrices turned over, so an element has one owner and a fixed order of sums, ascending.
#include "ops/image.h"

#include <bit>

#include "core/dispatch.h"
#include "cuda/core/convert.h"
#include "cuda/core/upload.h"

namespace libmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kShared = 4096;  // mixed elements of a block, all of its rows together

template <class A> struct DeviceBands {
  int rows, columns, width;
  const int32_t *first, *count;  // [rows]
  const A* weights;              // [rows, width]
};

// The columns from `low` to before `high` are those that a tile of rows needs.
struct Stretch {
  int32_t low, high;
};

// blockDim (columns, rows); each row of threads has kShared / rows elements of shared memory.
template <class T, class A>
__global__ void __launch_bounds__(kThreads) resample_kernel(const T* x, T* y, int64_t rows, DeviceBands<A> down, DeviceBands<A> across, const Stretch* stretches) {
  __shared__ A shared[kShared];
  const int room = kShared / int(blockDim.y), tiles = (across.rows + int(blockDim.x) - 1) / int(blockDim.x);
  A* mixed = shared + int(threadIdx.y) * room;
  const int64_t groups = (rows + blockDim.y - 1) / blockDim.y;
  for (int64_t item = blockIdx.x; item < groups * tiles; item += gridDim.x) {
    const int64_t row = item / tiles * blockDim.y + threadIdx.y;
    const int tile = int(item % tiles) * int(blockDim.x), o = tile + int(threadIdx.x), limit = min(tile + int(blockDim.x), across.rows);
    const bool live = row < rows;
    const int r = live ? int(row % down.rows) : 0, taps = live ? down.count[r] : 0;
    const T* from = x + (live ? (row / down.rows * down.columns + down.first[r]) * across.columns : 0);
    const A* down_weights = down.weights + int64_t(r) * down.width;
    const int first = o < limit ? across.first[o] : 0, end = o < limit ? first + across.count[o] : 0;
    const A* weights = across.weights + int64_t(o < limit ? o : 0) * across.width - first;
    A sum = 0;
    const Stretch stretch = stretches[item % tiles];
    for (int begin = stretch.low; begin < stretch.high; begin += room) {
      const int stop = min(begin + room, stretch.high);
      __syncthreads();
      for (int i = begin + int(threadIdx.x); i < stop; i += int(blockDim.x)) {
        A mix = 0;
        for (int k = 0; k < taps; ++k) mix += load(from[int64_t(k) * across.columns + i]) * down_weights[k];
        mixed[i - begin] = mix;
      }
      __syncthreads();
      for (int i = max(first, begin); i < min(end, stop); ++i) sum += mixed[i - begin] * weights[i];
    }
    if (live && o < limit) y[row * across.rows + o] = store<T>(sum);
  }
}

template <class A> std::vector<Stretch> stretches_of(const Bands<A>& b, int64_t tile) {
  std::vector<Stretch> list(size_t(blocks_for(b.rows, tile)), Stretch{int32_t(b.columns), 0});
  for (int64_t r = 0; r < b.rows; ++r) {
    Stretch& s = list[size_t(r / tile)];
    s.low = std::min(s.low, b.first[size_t(r)]);
    s.high = std::max(s.high, b.first[size_t(r)] + b.count[size_t(r)]);
  }
  return list;
}

template <class A> size_t bytes_of(const Bands<A>& b) { return (b.first.size() + b.count.size()) * sizeof(int32_t) + b.weights.size() * sizeof(A); }

// Weights first: they want the widest alignment.
template <class A> DeviceBands<A> place(const Bands<A>& b, unsigned char* host, const unsigned char* device) {
  const size_t weights = b.weights.size() * sizeof(A), rows = b.first.size() * sizeof(int32_t);
  std::copy_n(reinterpret_cast<const unsigned char*>(b.weights.data()), weights, host);
  std::copy_n(reinterpret_cast<const unsigned char*>(b.first.data()), rows, host + weights);
  std::copy_n(reinterpret_cast<const unsigned char*>(b.count.data()), rows, host + weights + rows);
  return {int(b.rows), int(b.columns), int(b.width), reinterpret_cast<const int32_t*>(device + weights), reinterpret_cast<const int32_t*>(device + weights + rows),
          reinterpret_cast<const A*>(device)};
}

template <class T> void resample(const TensorView& x, const TensorView& y, const Bands<Accumulator<T>>& down, const Bands<Accumulator<T>>& across) {
  using A = Accumulator<T>;
  DeviceState& state = state_of(y.device);
  const unsigned columns = unsigned(std::bit_ceil(uint64_t(std::clamp<int64_t>(across.rows, 8, kThreads)))), together = kThreads / columns;
  const std::vector<Stretch> stretches = stretches_of(across, columns);
  const auto whole = [](size_t bytes) { return (bytes + 15) / 16 * 16; };
  const size_t split = whole(bytes_of(down)), end = split + whole(bytes_of(across)), bytes = end + stretches.size() * sizeof(Stretch);
  std::vector<unsigned char> host(bytes);
  const Scratch scratch(state, bytes);
  unsigned char* device = scratch.as<unsigned char>();
  const DeviceBands<A> d = place(down, host.data(), device), a = place(across, host.data() + split, device + split);
  std::copy_n(reinterpret_cast<const unsigned char*>(stretches.data()), bytes - end, host.data() + end);
  enqueue_upload(state, device, host.data(), bytes);
  const int64_t rows = y.shape[0] * y.shape[1] * y.shape[2];
  const int64_t items = blocks_for(rows, together) * blocks_for(across.rows, columns);
  launch(state, resample_kernel<T, A>, grid_for(state, items, 1), dim3(columns, together), 0, x.as<const T>(), y.as<T>(), rows, d, a,
         reinterpret_cast<const Stretch*>(device + end));
}

void interpolate(const TensorView& x, const TensorView& y, Interpolation mode) {
  if (y.elements() == 0) return;
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    resample<T>(x, y, interpolation_bands<A>(mode, x.shape[2], y.shape[2]), interpolation_bands<A>(mode, x.shape[3], y.shape[3]));
  });
}

void interpolate_backward(const TensorView& dy, const TensorView& dx, Interpolation mode) {
  if (dx.elements() == 0) return;
  with_float(dx.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    resample<T>(dy, dx, transposed(interpolation_bands<A>(mode, dx.shape[2], dy.shape[2])), transposed(interpolation_bands<A>(mode, dx.shape[3], dy.shape[3])));
  });
}

}  // namespace

extern const ImageOps image_ops;
const ImageOps image_ops = {interpolate, interpolate_backward, nullptr};

}  // namespace libmoe::cuda

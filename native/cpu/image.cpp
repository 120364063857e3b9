// Bound by memory where images grow (floor: x read, y written once), by a multiply-add per tap where they shrink. Output rows go to the threads; each first mixes its
// input rows into one, then its outputs gather from that. An output has one owner and a fixed order of sums.
#include "ops/image.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {

void resize_pixels(const PixelResize& resize);

namespace {

template <class T, class A> void gather(const A* row, const Bands<A>& bands, T* y) {
  const A* weights = bands.weights.data();
  for (int64_t o = 0; o < bands.rows; ++o, weights += bands.width) {
    const A* from = row + bands.first[size_t(o)];
    A sum = 0;
    for (int64_t k = 0; k < bands.count[size_t(o)]; ++k) sum += from[k] * weights[k];
    y[o] = T(sum);
  }
}

template <class T> void resample(const TensorView& x, const TensorView& y, const Bands<Accumulator<T>>& down, const Bands<Accumulator<T>>& across) {
  using A = Accumulator<T>;
  const int64_t height = down.columns, width = across.columns, rows = y.shape[0] * y.shape[1] * down.rows;
  const int64_t cost = width * std::max<int64_t>(1, down.width) + across.rows * std::max<int64_t>(1, across.width);
  parallel_ranges(rows, std::max<int64_t>(1, 16384 / cost), [&](int64_t begin, int64_t end) {
    A* mixed = scratch_of<A>(0, width);
    for (int64_t item = begin; item < end; ++item) {
      const size_t r = size_t(item % down.rows);
      const T* from = x.as<T>() + (item / down.rows * height + down.first[r]) * width;
      const A* weights = down.weights.data() + r * size_t(down.width);
      for_vectors<A>(width, [&](int64_t i, int lanes) {
        Vec<A> sum = Vec<A>::zero();
        for (int64_t k = 0; k < down.count[r]; ++k) sum += load_count(from + k * width + i, lanes) * Vec<A>(weights[k]);
        store_count(mixed + i, sum, lanes);
      });
      gather(mixed, across, y.as<T>() + item * across.rows);
    }
  });
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
const ImageOps image_ops = {interpolate, interpolate_backward, resize_pixels};

}  // namespace libmoe::cpu::LIBMOE_ISA

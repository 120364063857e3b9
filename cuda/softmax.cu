// Bound by memory: a row is read once, kept in registers as far as it fits (the rest comes again from cache) and written once; backward reads two rows and writes one.
// Floor in bf16: 4 bytes an element forward, 6 backward. Teams of lanes have short rows, blocks long ones.
#include "ops/softmax.h"

#include "core/dispatch.h"
#include "cuda/core/rows.h"

namespace libmoe::cuda {
namespace {

constexpr int kKept = 4;

template <class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2) softmax_kernel(const T* x, int64_t rows, int64_t width, bool logarithm, bool whole, Team<kBlock> team, T* y) {
  using A = Accumulator<T>;
  constexpr int P = kPack<T>;
  for (int64_t begin = int64_t(blockIdx.x) * (kRowThreads / team.size); begin < rows; begin += team.row_step()) {
    const int64_t r = begin + int(threadIdx.x) / team.size;
    const Row<T, kKept, kBlock> row(x + r * width, r < rows ? width : 0, whole, team);
    A top = A(-INFINITY);
    row.each([&](int64_t, int count, const auto& p) {
#pragma unroll
      for (int j = 0; j < P; ++j)
        if (j < count) top = Max{}(top, load(p.at[j]));
    });
    top = team.template all<Max>(top);
    A sum = 0;
    row.each([&](int64_t, int count, const auto& p) { sum += A(pack_sum(p, count, [&](A v) { return exp(v - top); })); });
    sum = team.template all<Sum>(sum);
    const A shift = logarithm ? log(sum) : A(0), share = A(1) / sum;
    row.each([&](int64_t i, int count, const auto& p) {
      Pack<T, P> out;
#pragma unroll
      for (int j = 0; j < P; ++j) {
        const A v = load(p.at[j]) - top;
        out.at[j] = store<T>(logarithm ? v - shift : exp(v) * share);
      }
      write_pack(y + r * width + i, out, count, whole);
    });
  }
}

void softmax(const TensorView& x, const TensorView& y, bool logarithm) {
  const DeviceState& state = state_of(y.device);
  const int64_t rows = x.shape[0], width = x.shape[1];
  if (width == 0) return;
  with_float(x.dtype, [&]<class T>() {
    const bool whole = whole_packs<T>(x.data, width) && aligned_to(y.data, 16);
    with_team<T>(state, rows, width, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
      launch(state, softmax_kernel<T, kBlock>, grid, kRowThreads, 0, x.as<const T>(), rows, width, logarithm, whole, team, y.as<T>());
    });
  });
}

template <class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2) softmax_backward_kernel(const T* y, const T* dy, int64_t rows, int64_t width, bool logarithm, bool whole,
                                                                          Team<kBlock> team, T* dx) {
  using A = Accumulator<T>;
  constexpr int P = kPack<T>;
  for (int64_t begin = int64_t(blockIdx.x) * (kRowThreads / team.size); begin < rows; begin += team.row_step()) {
    const int64_t r = begin + int(threadIdx.x) / team.size, at = r * width, n = r < rows ? width : 0;
    const Row<T, kKept, kBlock> row(y + at, n, whole, team), gradient(dy + at, n, whole, team);
    // With the logarithm: sum of dy, else of y dy.
    A total = 0;
    each_of_two(row, gradient, [&](int64_t, int count, const auto& p, const auto& g) {
#pragma unroll
      for (int j = 0; j < P; ++j)
        if (j < count) total += logarithm ? load(g.at[j]) : load(p.at[j]) * load(g.at[j]);
    });
    total = team.template all<Sum>(total);
    each_of_two(row, gradient, [&](int64_t i, int count, const auto& p, const auto& g) {
      Pack<T, P> out;
#pragma unroll
      for (int j = 0; j < P; ++j) {
        const A v = load(p.at[j]), d = load(g.at[j]);
        out.at[j] = store<T>(logarithm ? d - exp(v) * total : v * (d - total));
      }
      write_pack(dx + at + i, out, count, whole);
    });
  }
}

void softmax_backward(const TensorView& y, const TensorView& dy, const TensorView& dx, bool logarithm) {
  const DeviceState& state = state_of(dx.device);
  const int64_t rows = y.shape[0], width = y.shape[1];
  if (width == 0) return;
  with_float(y.dtype, [&]<class T>() {
    const bool whole = whole_packs<T>(y.data, width) && aligned_to(dy.data, 16) && aligned_to(dx.data, 16);
    with_team<T>(state, rows, width, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
      launch(state, softmax_backward_kernel<T, kBlock>, grid, kRowThreads, 0, y.as<const T>(), dy.as<const T>(), rows, width, logarithm, whole, team, dx.as<T>());
    });
  });
}

}  // namespace

extern const SoftmaxOps softmax_ops;
const SoftmaxOps softmax_ops = {softmax, softmax_backward};

}  // namespace libmoe::cuda

// Bound by memory: every reduction reads its input once (floor: the bytes of x). The axes are merged into [outer, reduced, inner] groups, innermost first. Rows that
// are contiguous go to teams of lanes or to blocks, very long ones in pieces to several blocks; where an inner axis is kept, a thread takes a pack of columns in 64
// rows, and the partial results are joined in a second launch. Sums run in f32 within a pack or those 64 rows, else in f64, in an order that sizes alone decide.
#include "ops/reduction.h"

#include <vector>

#include "core/dispatch.h"
#include "cuda/core/column_sums.h"
#include "cuda/core/rows.h"
#include "ops/elementwise.h"

namespace libmoe::cuda {

extern const ElementwiseOps elementwise_ops;

namespace {

constexpr int64_t kLong = 65536;     // elements of a row that one block takes
constexpr int64_t kRowChunk = 64;    // rows that a thread sums in the accumulator's type when the inner axis is kept
constexpr int kKept = 4;

// Where results go, times `scale`; their type is chosen at run time, since there are few of them.
struct Results {
  void* data;
  Dtype dtype;
  double scale;
  int64_t width = 1;
  __device__ void put(int64_t i, double x) const {
    if (dtype == Dtype::f64) static_cast<double*>(data)[i] = x * scale;
    else if (dtype == Dtype::f32) static_cast<float*>(data)[i] = float(x * scale);
    else static_cast<bf16*>(data)[i] = store<bf16>(float(x * scale));
  }
  __device__ void operator()(int64_t outer, int64_t column, double x) const { put(outer * width + column, x); }
};

template <class F, class T, bool kBlock> __device__ inline double reduce_row(const T* x, int64_t width, bool whole, Team<kBlock> team, bool present) {
  using A = Accumulator<T>;
  const F f{};
  double r = F::template identity<double>();
  const Row<T, kKept, kBlock> row(x, present ? width : 0, whole, team);
  row.each([&](int64_t, int count, const auto& p) {
    if constexpr (std::is_same_v<F, Sum>) {
      r += pack_sum(p, count, [](A v) { return v; });
    } else {
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j)
        if (j < count) r = f(r, double(load(p.at[j])));
    }
  });
  return team.template all<F>(r);
}

// Rows of a tensor of `pieces` pieces each, a result for each piece.
template <class F, class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2) reduce_rows_kernel(const T* x, int64_t rows, int64_t pieces, int64_t piece, int64_t width, bool whole,
                                                                     Team<kBlock> team, Results y) {
  const int64_t items = rows * pieces;
  for (int64_t begin = int64_t(blockIdx.x) * (kRowThreads / team.size); begin < items; begin += team.row_step()) {
    const int64_t item = begin + int(threadIdx.x) / team.size, row = item / pieces, at = item % pieces * piece;  // with a block for each row, item is begin
    const double r = reduce_row<F>(x + row * width + at, min(piece, width - at), whole, team, item < items);
    if (item < items && team.lane() == 0) y.put(item, r);
  }
}

// in [outer, n] -> out [outer].
template <class F, class T> void reduce_rows(const DeviceState& state, const T* in, int64_t outer, int64_t n, Results out) {
  const bool whole = whole_packs<T>(in, n);
  if (n > kLong) {
    const int64_t pieces = blocks_for(n, kLong);
    const Scratch partial(state, size_t(outer * pieces) * 8);
    launch(state, reduce_rows_kernel<F, T, true>, grid_for(state, outer * pieces, 1, 8), kRowThreads, 0, in, outer, pieces, kLong, n, whole, Team<true>{kRowThreads},
           Results{partial.as<void>(), Dtype::f64, 1.0});
    return join_chunks<F>(state, static_cast<const double*>(partial.as<double>()), outer, pieces, 1, 1, out);
  }
  with_team<T>(state, outer, n, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
    launch(state, reduce_rows_kernel<F, T, kBlock>, grid, kRowThreads, 0, in, outer, int64_t(1), n, n, whole, team, out);
  });
}

// in [outer, n, width] -> partial [outer, chunks, width]: a thread has P columns of one chunk.
template <class F, int P, class T>
__global__ void __launch_bounds__(kRowThreads, 2) chunk_kernel(const T* x, int64_t items, int64_t chunks, int64_t n, int64_t width, Accumulator<T>* partial) {
  using A = Accumulator<T>;
  const F f{};
  const int64_t packs = width / P;
  for (int64_t item = int64_t(blockIdx.x) * kRowThreads + threadIdx.x; item < items; item += int64_t(gridDim.x) * kRowThreads) {
    const int64_t column = item % packs * P, chunk = item / packs, c = chunk % chunks, o = chunk / chunks, first = c * kRowChunk;
    const int rows = int(min(kRowChunk, n - first));
    const T* in = x + (o * n + first) * width + column;
    A r[P];
#pragma unroll
    for (int j = 0; j < P; ++j) r[j] = F::template identity<A>();
#pragma unroll 4
    for (int row = 0; row < rows; ++row) {
      const auto p = *reinterpret_cast<const Pack<T, P>*>(in + row * width);
#pragma unroll
      for (int j = 0; j < P; ++j) r[j] = f(r[j], load(p.at[j]));
    }
#pragma unroll
    for (int j = 0; j < P; ++j) partial[chunk * width + column + j] = r[j];
  }
}

// in [outer, n, width] -> out [outer, width].
template <class F, class T> void reduce_columns(const DeviceState& state, const T* in, int64_t outer, int64_t n, int64_t width, Results out) {
  using A = Accumulator<T>;
  const int64_t chunks = blocks_for(n, kRowChunk);
  const Scratch partial(state, size_t(outer * chunks * width) * sizeof(A));
  const auto run = [&]<int P>() {
    const int64_t items = outer * chunks * (width / P);
    launch(state, chunk_kernel<F, P, T>, grid_for(state, items, kRowThreads), kRowThreads, 0, in, items, chunks, n, width, partial.as<A>());
  };
  if (whole_packs<T>(in, width)) run.template operator()<kPack<T>>();
  else run.template operator()<1>();
  out.width = width;
  join_chunks<F>(state, static_cast<const A*>(partial.as<A>()), outer, chunks, width, width, out);
}

template <class F, class T> void reduce_all(const DeviceState& state, const T* in, Groups g, Results out) {
  using A = Accumulator<T>;
  int at = int(g.sizes.size()) - 1;
  while (at >= 0 && !g.reduced[size_t(at)]) --at;
  int64_t outer = 1, width = 1;
  for (int i = 0; i < int(g.sizes.size()); ++i) {
    if (i < at) outer *= g.sizes[size_t(i)];
    if (i > at) width *= g.sizes[size_t(i)];
  }
  if (outer * width == 0) return;
  const int64_t n = g.sizes[size_t(at)];
  const auto run = [&](const Results& to) {
    if (width == 1) reduce_rows<F>(state, in, outer, n, to);
    else reduce_columns<F>(state, in, outer, n, width, to);
  };
  if (at < 2) return run(out);
  // What remains to be reduced goes through a block of accumulators.
  const Scratch middle(state, size_t(outer * width) * sizeof(A));
  run({middle.as<void>(), DtypeOf<A>::value, 1.0});
  g.sizes.erase(g.sizes.begin() + at);
  g.reduced.erase(g.reduced.begin() + at);
  reduce_all<F>(state, static_cast<const A*>(middle.as<A>()), g, out);
}

void reduce(Reduction f, const TensorView& x, uint32_t axes, const TensorView& y) {
  const Groups g = groups_of(x.shape, axes);
  const bool nothing = std::find(g.reduced.begin(), g.reduced.end(), true) == g.reduced.end();
  if (nothing) return elementwise_ops.cast(x, {y.data, y.dtype, y.device, x.shape});
  const double scale = f == Reduction::mean ? 1.0 / (double(x.elements()) / double(std::max<int64_t>(1, y.elements()))) : 1.0;
  with_float(x.dtype, [&]<class T>() {
    const Results out{y.data, y.dtype, scale};
    if (f == Reduction::max) reduce_all<Max>(state_of(y.device), x.as<const T>(), g, out);
    else reduce_all<Sum>(state_of(y.device), x.as<const T>(), g, out);
  });
}

// The larger of two values with their places: the lower place on ties, a NaN before all numbers.
template <class A> struct Best {
  A value;
  int64_t at;
  __device__ void take(A v, int64_t i) {
    const bool nan = v != v, held = value != value;
    if (nan ? !held || i < at : !held && (v > value || (v == value && i < at))) {
      value = v;
      at = i;
    }
  }
};

template <class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2) argmax_kernel(const T* x, int64_t rows, int64_t n, bool whole, Team<kBlock> team, int32_t* y) {
  using A = Accumulator<T>;
  __shared__ Best<A> parts[kRowThreads / 32];
  for (int64_t begin = int64_t(blockIdx.x) * (kRowThreads / team.size); begin < rows; begin += team.row_step()) {
    const int64_t r = begin + int(threadIdx.x) / team.size;
    Best<A> best{A(-INFINITY), n};
    const Row<T, kKept, kBlock> row(x + r * n, r < rows ? n : 0, whole, team);
    row.each([&](int64_t i, int count, const auto& p) {
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j)
        if (j < count) best.take(load(p.at[j]), i + j);
    });
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) {
      const A value = __shfl_xor_sync(kFullWarp, best.value, bits);
      const int64_t at = __shfl_xor_sync(kFullWarp, best.at, bits);
      if (bits < team.size) best.take(value, at);
    }
    if constexpr (kBlock) {
      __syncthreads();
      if ((threadIdx.x & 31u) == 0) parts[threadIdx.x >> 5] = best;
      __syncthreads();
      for (int w = 0; w < kRowThreads / 32; ++w) best.take(parts[w].value, parts[w].at);
    }
    if (r < rows && team.lane() == 0) y[r] = int32_t(best.at);
  }
}

void argmax(const TensorView& x, const TensorView& y) {
  const DeviceState& state = state_of(y.device);
  const int64_t rows = x.shape[0], n = x.shape[1];
  with_float(x.dtype, [&]<class T>() {
    with_team<T>(state, rows, n, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
      launch(state, argmax_kernel<T, kBlock>, grid, kRowThreads, 0, x.as<const T>(), rows, n, whole_packs<T>(x.data, n), team, y.as<int32_t>());
    });
  });
}

template <class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2) log_sum_exp_kernel(const T* x, int64_t rows, int64_t n, bool whole, Team<kBlock> team, Accumulator<T>* y) {
  using A = Accumulator<T>;
  for (int64_t begin = int64_t(blockIdx.x) * (kRowThreads / team.size); begin < rows; begin += team.row_step()) {
    const int64_t r = begin + int(threadIdx.x) / team.size;
    const Row<T, kKept, kBlock> row(x + r * n, r < rows ? n : 0, whole, team);
    A top = A(-INFINITY);
    row.each([&](int64_t, int count, const auto& p) {
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j)
        if (j < count) top = Max{}(top, load(p.at[j]));
    });
    top = team.template all<Max>(top);
    double sum = 0;
    row.each([&](int64_t, int count, const auto& p) { sum += pack_sum(p, count, [&](A v) { return exp(v - top); }); });
    sum = team.template all<Sum>(sum);
    // An infinite or NaN maximum is the answer already.
    if (r < rows && team.lane() == 0) y[r] = top - top == A(0) ? A(double(top) + log(sum)) : top;
  }
}

void log_sum_exp(const TensorView& x, const TensorView& y) {
  const DeviceState& state = state_of(y.device);
  const int64_t rows = x.shape[0], n = x.shape[1];
  with_float(x.dtype, [&]<class T>() {
    with_team<T>(state, rows, n, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
      launch(state, log_sum_exp_kernel<T, kBlock>, grid, kRowThreads, 0, x.as<const T>(), rows, n, whole_packs<T>(x.data, n), team, y.as<Accumulator<T>>());
    });
  });
}

template <class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2)
    log_sum_exp_backward_kernel(const T* x, const Accumulator<T>* y, const Accumulator<T>* dy, int64_t rows, int64_t n, bool whole, Team<kBlock> team, T* dx) {
  for (int64_t r = team.first_row(); r < rows; r += team.row_step()) {
    const auto total = y[r], g = dy[r];
    const Row<T, 1, kBlock> row(x + r * n, n, whole, team);
    row.each([&](int64_t i, int count, const auto& p) {
      Pack<T, kPack<T>> out;
#pragma unroll
      for (int j = 0; j < kPack<T>; ++j) out.at[j] = store<T>(g * exp(load(p.at[j]) - total));
      write_pack(dx + r * n + i, out, count, whole);
    });
  }
}

void log_sum_exp_backward(const TensorView& x, const TensorView& y, const TensorView& dy, const TensorView& dx) {
  const DeviceState& state = state_of(dx.device);
  const int64_t rows = x.shape[0], n = x.shape[1];
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    with_team<T>(state, rows, n, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
      launch(state, log_sum_exp_backward_kernel<T, kBlock>, grid, kRowThreads, 0, x.as<const T>(), y.as<const A>(), dy.as<const A>(), rows, n,
             whole_packs<T>(x.data, n) && aligned_to(dx.data, 16), team, dx.as<T>());
    });
  });
}

}  // namespace

extern const ReductionOps reduction_ops;
const ReductionOps reduction_ops = {reduce, argmax, log_sum_exp, log_sum_exp_backward};

}  // namespace libmoe::cuda

// Bound by memory. Forward: a row of x is read once, kept in registers as far as it fits, and y written once (floor in bf16: 4 bytes an element); short rows go to
// teams of lanes, long ones to blocks. Backward: a block has a chunk of rows, 16 long ones or up to 512 short ones. First teams of lanes find the sums of each row,
// then every thread walks a pack of columns down the chunk, where it finds x and dy in cache: dx leaves on the way, and the chunk's weight gradient is summed in
// registers and joined with those of the other chunks in a second launch (floor in bf16: 6 bytes an element, and 4 to 8 bytes a column and chunk).
#include "ops/norm.h"

#include "core/dispatch.h"
#include "cuda/core/column_sums.h"
#include "cuda/core/rows.h"

namespace libmoe::cuda {
namespace {

constexpr int kKept = 4;

// `count` elements at p, the rest of the pack zero.
template <class T> __device__ inline Pack<T, kPack<T>> read_pack(const T* p, int count, bool whole) {
  if (whole) return *reinterpret_cast<const Pack<T, kPack<T>>*>(p);
  Pack<T, kPack<T>> out{};
#pragma unroll
  for (int j = 0; j < kPack<T>; ++j)
    if (j < count) out.at[j] = p[j];
  return out;
}

template <class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2) norm_kernel(const T* x, const T* weight, const T* bias, int64_t rows, int64_t width, Accumulator<T> epsilon,
                                                              bool whole, Team<kBlock> team, T* y, Accumulator<T>* mean, Accumulator<T>* inverse) {
  using A = Accumulator<T>;
  constexpr int P = kPack<T>;
  const A share = A(1) / A(width);
  for (int64_t begin = int64_t(blockIdx.x) * (kRowThreads / team.size); begin < rows; begin += team.row_step()) {
    const int64_t r = begin + int(threadIdx.x) / team.size;
    const Row<T, kKept, kBlock> row(x + r * width, r < rows ? width : 0, whole, team);
    A centre = 0;
    if (mean) {
      row.each([&](int64_t, int count, const auto& p) { centre += A(pack_sum(p, count, [](A v) { return v; })); });
      centre = team.template all<Sum>(centre) * share;
    }
    A square = 0;
    row.each([&](int64_t, int count, const auto& p) { square += A(pack_sum(p, count, [&](A v) { return (v - centre) * (v - centre); })); });
    const A scale = A(1) / sqrt(team.template all<Sum>(square) * share + epsilon);
    if (r < rows && team.lane() == 0) {
      if (mean) mean[r] = centre;
      inverse[r] = scale;
    }
    row.each([&](int64_t i, int count, const auto& p) {
      const auto w = read_pack(weight + i, count, whole), b = bias ? read_pack(bias + i, count, whole) : Pack<T, P>{};
      Pack<T, P> out;
#pragma unroll
      for (int j = 0; j < P; ++j) {
        const A scaled = (load(p.at[j]) - centre) * scale * load(w.at[j]);
        out.at[j] = store<T>(bias ? scaled + load(b.at[j]) : scaled);
      }
      write_pack(y + r * width + i, out, count, whole);
    });
  }
}

void norm(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y, const TensorView& mean, const TensorView& inverse,
          double epsilon) {
  const DeviceState& state = state_of(y.device);
  const int64_t rows = x.shape[0], width = x.shape[1];
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const bool whole = whole_packs<T>(x.data, width) && aligned_to(weight.data, 16) && aligned_to(bias.data, 16) && aligned_to(y.data, 16);
    with_team<T>(state, rows, width, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
      launch(state, norm_kernel<T, kBlock>, grid, kRowThreads, 0, x.as<const T>(), weight.as<const T>(), bias.as<const T>(), rows, width, A(epsilon), whole,
             team, y.as<T>(), mean.as<A>(), inverse.as<A>());
    });
  });
}

// How a chunk of rows lies in a block, a function of the width alone: `across` threads have a row's packs, `down` rows go side by side in the walk along columns.
struct Chunk {
  int across = 1, down = 1, rows = 16;
};
constexpr int kMaxDown = 32, kDeep = 16;
template <class T> Chunk chunk_for(int64_t width) {
  Chunk c;
  c.across = int(std::bit_ceil(uint64_t(std::clamp<int64_t>(blocks_for(width, kPack<T>), 1, kRowThreads))));
  c.down = std::min(kMaxDown, kRowThreads / c.across);
  c.rows = kDeep * c.down;
  return c;
}

template <class A> struct RowState {
  A centre, scale, shift, slope;
};

// The sums of a chunk's columns in `down` threads each, joined in order, to partial[width].
template <class T>
__device__ inline void write_partial(const Accumulator<T> (&sum)[kPack<T>], Chunk chunk, int across, int down, bool active, int64_t column, int64_t width,
                                     Accumulator<T>* parts, Accumulator<T>* partial) {
  constexpr int P = kPack<T>;
  if (chunk.down == 1) {
#pragma unroll
    for (int j = 0; j < P; ++j)
      if (column + j < width) partial[column + j] = sum[j];
    return;
  }
  const int wide = chunk.across * P;  // one walk covers all columns here
  if (active) {
#pragma unroll
    for (int j = 0; j < P; ++j) parts[down * wide + across * P + j] = sum[j];
  }
  __syncthreads();
  for (int c = threadIdx.x; c < width; c += kRowThreads) {
    Accumulator<T> total = parts[c];
    for (int k = 1; k < chunk.down; ++k) total += parts[k * wide + c];
    partial[c] = total;
  }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kRowThreads, 2)
    norm_backward_kernel(const T* x, const T* weight, const T* dy, const Accumulator<T>* mean, const Accumulator<T>* inverse, int64_t rows, int64_t width,
                         bool whole, Chunk chunk, T* dx, Accumulator<T>* dweight, Accumulator<T>* dbias, int64_t stride) {
  using A = Accumulator<T>;
  constexpr int P = kPack<T>;
  __shared__ RowState<A> states[kDeep * kMaxDown];
  __shared__ A parts[kRowThreads * P];
  const A share = A(1) / A(width);
  const int64_t first = int64_t(blockIdx.x) * chunk.rows;
  const int present = int(min(int64_t(chunk.rows), rows - first));

  const Team<false> team{min(32, chunk.across)};
  const int teams = kRowThreads / team.size;
  for (int begin = 0; begin < present; begin += teams) {
    const int k = begin + int(threadIdx.x) / team.size;
    const bool mine = k < present;
    const A centre = mine && mean ? mean[first + k] : A(0), scale = mine ? inverse[first + k] : A(0);
    A shift = 0, slope = 0;
    if (dx && mine) {
      const T *in = x + (first + k) * width, *g = dy + (first + k) * width;
#pragma unroll 2
      for (int64_t i = int64_t(team.lane()) * P; i < width; i += int64_t(team.size) * P) {
        const int count = int(min(int64_t(P), width - i));
        const auto px = read_pack(in + i, count, whole), pg = read_pack(g + i, count, whole), pw = read_pack(weight + i, count, whole);
#pragma unroll
        for (int j = 0; j < P; ++j) {
          const A weighted = load(pg.at[j]) * load(pw.at[j]);
          shift += weighted;
          slope += weighted * ((load(px.at[j]) - centre) * scale);
        }
      }
    }
    slope = team.template all<Sum>(slope) * share;
    shift = mean ? team.template all<Sum>(shift) * share : A(0);
    if (mine && team.lane() == 0) states[k] = {centre, scale, shift, slope};
  }
  __syncthreads();

  const int across = int(threadIdx.x) % chunk.across, down = int(threadIdx.x) / chunk.across;
  const bool active = down < chunk.down;
  for (int64_t begin = 0; begin < width; begin += int64_t(chunk.across) * P) {
    const int64_t column = begin + int64_t(across) * P;
    const int count = int(min(int64_t(P), width - column));
    A dw[P], db[P];
#pragma unroll
    for (int j = 0; j < P; ++j) dw[j] = db[j] = A(0);
    if (active && column < width) {
      const auto w = read_pack(weight + column, count, whole);
#pragma unroll 2
      for (int k = down; k < present; k += chunk.down) {
        const int64_t at = (first + k) * width + column;
        const auto px = read_pack(x + at, count, whole), pg = read_pack(dy + at, count, whole);
        const RowState<A> s = states[k];
        Pack<T, P> out;
#pragma unroll
        for (int j = 0; j < P; ++j) {
          const A normal = (load(px.at[j]) - s.centre) * s.scale, g = load(pg.at[j]);
          out.at[j] = store<T>(s.scale * (g * load(w.at[j]) - s.shift - normal * s.slope));
          dw[j] += g * normal;
          db[j] += g;
        }
        if (dx) write_pack(dx + at, out, count, whole);
      }
    }
    if (dweight) write_partial<T>(dw, chunk, across, down, active, column, width, parts, dweight + blockIdx.x * stride);
    if (dbias) write_partial<T>(db, chunk, across, down, active, column, width, parts, dbias + blockIdx.x * stride);
  }
}

template <class A> struct Gradient {
  A* to;
  bool accumulate;
  __device__ void operator()(int64_t, int64_t column, double sum) const { to[column] = accumulate ? to[column] + A(sum) : A(sum); }
};

void norm_backward(const TensorView& x, const TensorView& weight, const TensorView& dy, const TensorView& mean, const TensorView& inverse,
                   const TensorView& dx, const TensorView& dweight, bool accumulate_weight, const TensorView& dbias, bool accumulate_bias) {
  const DeviceState& state = state_of(x.device);
  const int64_t rows = x.shape[0], width = x.shape[1];
  if (width == 0) return;
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Chunk chunk = chunk_for<T>(width);
    const int64_t chunks = blocks_for(rows, chunk.rows), stride = width * ((dweight ? 1 : 0) + (dbias ? 1 : 0));
    const Scratch partial(state, size_t(chunks * stride) * sizeof(A));
    A *dw = dweight ? partial.as<A>() : nullptr, *db = dbias ? partial.as<A>() + (dweight ? width : 0) : nullptr;
    const bool whole = whole_packs<T>(x.data, width) && aligned_to(weight.data, 16) && aligned_to(dy.data, 16) && aligned_to(dx.data, 16);
    launch(state, norm_backward_kernel<T>, unsigned(chunks), kRowThreads, 0, x.as<const T>(), weight.as<const T>(), dy.as<const T>(), mean.as<const A>(),
           inverse.as<const A>(), rows, width, whole, chunk, dx.as<T>(), dw, db, stride);
    if (dweight) join_chunks<Sum>(state, static_cast<const A*>(dw), 1, chunks, stride, width, Gradient<A>{dweight.as<A>(), accumulate_weight});
    if (dbias) join_chunks<Sum>(state, static_cast<const A*>(db), 1, chunks, stride, width, Gradient<A>{dbias.as<A>(), accumulate_bias});
  });
}

// y, or with dx its gradient: the length of a row is found anew, which costs no more reading than dx needs anyway.
template <class T, bool kBlock>
__global__ void __launch_bounds__(kRowThreads, 2) inverse_norms_kernel(const T* x, int64_t rows, int64_t width, Accumulator<T> floor, Accumulator<T> plus,
                                                                       bool whole, Team<kBlock> team, Accumulator<T>* y, const Accumulator<T>* dy, T* dx) {
  using A = Accumulator<T>;
  constexpr int P = kPack<T>;
  for (int64_t begin = int64_t(blockIdx.x) * (kRowThreads / team.size); begin < rows; begin += team.row_step()) {
    const int64_t r = begin + int(threadIdx.x) / team.size;
    const Row<T, kKept, kBlock> row(x + r * width, r < rows ? width : 0, whole, team);
    A square = 0;
    row.each([&](int64_t, int count, const auto& p) { square += A(pack_sum(p, count, [](A v) { return v * v; })); });
    const A length = sqrt(team.template all<Sum>(square));
    if (!dx) {
      if (r < rows && team.lane() == 0) y[r] = A(1) / ((length < floor ? floor : length) + plus);
      continue;
    }
    if (r >= rows) continue;
    const A slope = length > floor ? -dy[r] * y[r] * y[r] / length : A(0);
    row.each([&](int64_t i, int count, const auto& p) {
      Pack<T, P> out;
#pragma unroll
      for (int j = 0; j < P; ++j) out.at[j] = store<T>(slope * load(p.at[j]));
      write_pack(dx + r * width + i, out, count, whole);
    });
  }
}

void run_inverse_norms(const TensorView& x, double floor, double plus, const TensorView& y, const TensorView& dy, const TensorView& dx) {
  const DeviceState& state = state_of(x.device);
  const int64_t rows = x.shape[0], width = x.shape[1];
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    with_team<T>(state, rows, width, [&]<bool kBlock>(Team<kBlock> team, unsigned grid) {
      launch(state, inverse_norms_kernel<T, kBlock>, grid, kRowThreads, 0, x.as<const T>(), rows, width, A(floor), A(plus), whole_packs<T>(x.data, width) &&
             aligned_to(dx.data, 16), team, y.as<A>(), dy.as<const A>(), dx.as<T>());
    });
  });
}

void inverse_norms(const TensorView& x, double floor, double plus, const TensorView& y) { run_inverse_norms(x, floor, plus, y, {}, {}); }

void inverse_norms_backward(const TensorView& x, double floor, const TensorView& y, const TensorView& dy, const TensorView& dx) {
  run_inverse_norms(x, floor, 0, y, dy, dx);
}

}  // namespace

extern const NormOps norm_ops;
const NormOps norm_ops = {norm, norm_backward, inverse_norms, inverse_norms_backward};

}  // namespace libmoe::cuda

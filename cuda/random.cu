// Bound by arithmetic: ten Philox rounds give four words, that is four elements (two of f64), which a thread writes at once. Element i has the words that it has on
// the CPU; uniform numbers, coin flips and permutations have the same bits there, normal numbers differ by the rounding of logarithm and circle functions.
// A permutation is Fisher and Yates' without its chain of swaps: see `resolve_kernel`. It is bound by memory, by the sort of n choices.
#include "ops/random.h"

#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "core/philox.h"
#include "cuda/core/convert.h"
#include "cuda/core/row_index.h"

namespace libmoe::cuda {
namespace {

constexpr int kThreads = 256;

struct Words {
  uint32_t at[4];
};
__device__ inline Words words_of(RandomSource source, uint64_t counter) {
  const auto four = philox(source.seed, source.stream, counter);
  return {{four[0], four[1], four[2], four[3]}};
}

// f(words, out) fills N elements from one counter.
template <int N, class F, class T> __global__ void __launch_bounds__(kThreads) fill_kernel(int64_t n, RandomSource source, F f, bool aligned, T* y) {
  for (int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x; c * N < n; c += int64_t(gridDim.x) * kThreads) {
    Pack<T, N> out;
    f(words_of(source, uint64_t(c)), out.at);
    if (aligned && (c + 1) * N <= n) {
      *reinterpret_cast<Pack<T, N>*>(y + c * N) = out;
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (c * N + j < n) y[c * N + j] = out.at[j];
    }
  }
}
template <int N, class T, class F> void fill(const TensorView& y, RandomSource source, F f) {
  const DeviceState& state = state_of(y.device);
  const int64_t n = y.elements();
  launch(state, fill_kernel<N, F, T>, grid_for(state, n, int64_t(kThreads) * N, 16), kThreads, 0, n, source, f, aligned_to(y.data, alignof(Pack<T, N>)), y.as<T>());
}

template <class A> constexpr int kElements = sizeof(A) == 4 ? 4 : 2;  // that share a counter

// Uniform in [0, 1), and in (0, 1] fine near zero, of element j of a counter.
__device__ inline float unit(const Words& w, int j, float) { return uniform_f32(w.at[j]); }
__device__ inline double unit(const Words& w, int j, double) { return uniform_f64(w.at[2 * j], w.at[2 * j + 1]); }
__device__ inline float positive(const Words& w, int j, float) { return (float(w.at[j]) + 0.5f) * 0x1p-32f; }
__device__ inline double positive(const Words& w, int j, double) { return uniform_f64(w.at[2 * j], w.at[2 * j + 1]) + 0x1p-54; }

// a + b c, rounded twice as on the CPU.
__device__ inline float product_sum(float a, float b, float c) { return __fadd_rn(a, __fmul_rn(b, c)); }
__device__ inline double product_sum(double a, double b, double c) { return __dadd_rn(a, __dmul_rn(b, c)); }

template <class T> struct Uniform {
  Accumulator<T> low, width, high, last;  // last: the largest value below high
  bool bounded;
  __device__ void operator()(const Words& w, T* out) const {
    using A = Accumulator<T>;
#pragma unroll
    for (int j = 0; j < kElements<A>; ++j) {
      const A v = product_sum(low, width, unit(w, j, A()));
      out[j] = store<T>(bounded && v >= high ? last : v);
    }
  }
};

void uniform(const TensorView& y, RandomSource source, double low, double high) {
  with_float(y.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const A top = A(high);
    fill<kElements<A>, T>(y, source, Uniform<T>{A(low), A(high - low), top, std::nextafter(top, A(low)), low < high});
  });
}

// A thread per counter of a row: 4 bytes of the stream's number read, a few elements written.
template <class T>
__global__ void __launch_bounds__(kThreads) uniform_rows_kernel(int64_t rows, int64_t n, int64_t counters, uint64_t seed, const int32_t* streams, Uniform<T> f, T* y) {
  constexpr int N = kElements<Accumulator<T>>;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < rows * counters; i += int64_t(gridDim.x) * kThreads) {
    const int64_t r = i / counters, first = i % counters * N;
    T out[N];
    f(words_of({seed, uint64_t(int64_t(streams[r]))}, uint64_t(i % counters)), out);
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (first + j < n) y[r * n + first + j] = out[j];
  }
}

void uniform_rows(const TensorView& y, const TensorView& streams, uint64_t seed, double low, double high) {
  const DeviceState& state = state_of(y.device);
  const int64_t rows = y.shape[0], n = y.shape[1];
  with_float(y.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const A top = A(high);
    const int64_t counters = blocks_for(n, kElements<A>);
    launch(state, uniform_rows_kernel<T>, grid_for(state, rows * counters, kThreads, 16), kThreads, 0, rows, n, counters, seed, static_cast<const int32_t*>(streams.as<int32_t>()),
           Uniform<T>{A(low), A(high - low), top, std::nextafter(top, A(low)), low < high}, y.as<T>());
  });
}

__device__ inline void turn(float t, float& s, float& c) { sincospif(2.0f * t, &s, &c); }
__device__ inline void turn(double t, double& s, double& c) { sincospi(2.0 * t, &s, &c); }

template <class T> struct Normal {
  Accumulator<T> mean, deviation;
  __device__ void operator()(const Words& w, T* out) const {
    using A = Accumulator<T>;
#pragma unroll
    for (int j = 0; j < kElements<A>; j += 2) {
      const A square = A(-2) * log(positive(w, j, A())), radius = square > A(0) ? sqrt(square) : A(0);
      A s, c;
      turn(unit(w, j + 1, A()), s, c);
      out[j] = store<T>(fma(radius * c, deviation, mean));
      out[j + 1] = store<T>(fma(radius * s, deviation, mean));
    }
  }
};

void normal(const TensorView& y, RandomSource source, double mean, double deviation) {
  with_float(y.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    fill<kElements<A>, T>(y, source, Normal<T>{A(mean), A(deviation)});
  });
}

template <class... C> __device__ inline double polynomial(double x, C... coefficients) {
  double r = 0;
  ((r = r * x + coefficients), ...);
  return r;
}

// Inverse of the normal distribution function for p in [1e-10, 1 - 1e-10] (Wichura, "Algorithm AS 241", 1988; about 16 digits).
__device__ inline double normal_quantile(double p) {
  const double q = p - 0.5;
  if (q >= -0.425 && q <= 0.425) {
    const double r = 0.180625 - q * q;
    return q *
           polynomial(r, 2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457, 13731.693765509461125,
                      1971.5909503065514427, 133.14166789178437745, 3.387132872796366608) /
           polynomial(r, 5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867, 5394.1960214247511077, 687.1870074920579083,
                      42.313330701600911252, 1.0);
  }
  const double r = sqrt(-log(q < 0 ? p : 1 - p)) - 1.6;
  const double z = polynomial(r, 7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258, 3.64784832476320460504,
                              5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734) /
                   polynomial(r, 1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459, 0.68976733498510000455,
                              1.6763848301838038494, 2.05319162663775882187, 1.0);
  return q < 0 ? -z : z;
}

template <class T> struct Truncated {
  double deviation, edge, below;
  __device__ void operator()(const Words& w, T* out) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const double u = (double(w.at[j]) + 0.5) * 0x1p-32, z = normal_quantile(below + u * (1 - 2 * below));
      out[j] = store<T>(Accumulator<T>((z < -edge ? -edge : z > edge ? edge : z) * deviation));
    }
  }
};

void truncated_normal(const TensorView& y, RandomSource source, double deviation, double bound) {
  // Mass below -bound; from 6.2 on it is beyond what 32-bit uniforms reach.
  const double edge = std::min(bound, 6.2), below = 0.5 * (1 - std::erf(edge * 0.70710678118654752440));
  with_float(y.dtype, [&]<class T>() { fill<4, T>(y, source, Truncated<T>{deviation, edge, below}); });
}

template <class T> struct Coin {
  double probability;
  T one, zero;
  __device__ void operator()(const Words& w, T* out) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) out[j] = double(w.at[j]) * 0x1p-32 < probability ? one : zero;
  }
};

void bernoulli(const TensorView& y, RandomSource source, double probability) {
  if (y.dtype == Dtype::boolean || y.dtype == Dtype::u8) return fill<4, uint8_t>(y, source, Coin<uint8_t>{probability, 1, 0});
  with_float(y.dtype, [&]<class T>() { fill<4, T>(y, source, Coin<T>{probability, T(1.f), T(0.f)}); });
}

// Step i of the shuffle, i = n-1 … 1, swaps the places i and choice[i] <= i.
__global__ void __launch_bounds__(kThreads) choose_kernel(int64_t n, RandomSource source, int32_t* choice) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads) {
    const Words w = words_of(source, uint64_t(i));
    // The high half of a 64 x 32 bit product: uniform in [0, i] up to 2^-33.
    const uint64_t m = uint64_t(i) + 1;
    choice[i] = int32_t((uint64_t(w.at[0]) * m + (uint64_t(w.at[1]) * m >> 32)) >> 32);
  }
}

// first[p]: where the steps that chose p begin in the order by choice.
__global__ void __launch_bounds__(kThreads) first_kernel(int64_t n, const uint32_t* choices, int32_t* first) {
  for (int64_t s = int64_t(blockIdx.x) * kThreads + threadIdx.x; s < n; s += int64_t(gridDim.x) * kThreads)
    if (s == 0 || choices[s - 1] != choices[s]) first[choices[s]] = int32_t(s);
}

// Before step i, place p <= i holds what the last step that chose p put there: step k, the smallest k > i with choice[k] = p, which moved there what place k held
// before step k; without such a step it holds p. So what place q holds before step q is found by going from q to the smallest k > q that chose q, again and again,
// until there is none: about log n steps. And the result has at i what place choice[i] held before step i.
__global__ void __launch_bounds__(kThreads) resolve_kernel(int64_t n, const uint32_t* choices, const int32_t* steps, const int32_t* first, int32_t* y) {
  for (int64_t s = int64_t(blockIdx.x) * kThreads + threadIdx.x; s < n; s += int64_t(gridDim.x) * kThreads) {
    uint32_t place = choices[s];
    for (int64_t at = s + 1; at >= 0 && at < n && choices[at] == place;) {
      place = uint32_t(steps[at]);
      at = first[place];  // -1: no step chose it
      if (at >= 0 && uint32_t(steps[at]) == place) ++at;  // a step that chose its own place changed nothing
    }
    y[steps[s]] = int32_t(place);
  }
}

void permutation(const TensorView& y, RandomSource source) {
  const DeviceState& state = state_of(y.device);
  const int64_t n = y.elements();
  if (n == 0) return;
  const Scratch choices(state, size_t(n) * 4), first(state, size_t(n) * 4);
  const unsigned grid = grid_for(state, n, kThreads);
  launch(state, choose_kernel, grid, kThreads, 0, n, source, choices.as<int32_t>());
  const SortedPositions sorted(state, choices.as<int32_t>(), n, n);
  check(cudaMemsetAsync(first.as<void>(), 0xff, size_t(n) * 4, state.compute), "clearing scratch memory");
  launch(state, first_kernel, grid, kThreads, 0, n, sorted.keys(), first.as<int32_t>());
  launch(state, resolve_kernel, grid, kThreads, 0, n, sorted.keys(), sorted.positions(), static_cast<const int32_t*>(first.as<int32_t>()), y.as<int32_t>());
}

}  // namespace

extern const RandomOps random_ops;
const RandomOps random_ops = {uniform, uniform_rows, normal, truncated_normal, bernoulli, permutation};

}  // namespace libmoe::cuda

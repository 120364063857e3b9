// Bound by memory: each operation reads its inputs and writes its output once. Floor of `binary` in bf16: 6 bytes an element.
#include "ops/elementwise.h"

#include "core/dispatch.h"
#include "cuda/core/activation.h"
#include "cuda/core/elements.h"
#include "cuda/core/expert_activation.h"

namespace libmoe::cuda {
namespace {

template <Unary U, class T> struct Value {
  __device__ T operator()(T x) const { return store<T>(apply<U>(load(x))); }
};
template <Unary U, class T> struct Gradient {
  __device__ T operator()(T x, T dy) const { return store<T>(load(dy) * derivative<U>(load(x))); }
};

void unary(Unary f, const TensorView& x, const TensorView& y) {
  const DeviceState& state = state_of(y.device);
  with_float(x.dtype, [&]<class T>() { with_unary(f, [&]<Unary U>() { map(state, x.elements(), Value<U, T>{}, y.as<T>(), x.as<const T>()); }); });
}

void unary_backward(Unary f, const TensorView& x, const TensorView& dy, const TensorView& dx) {
  const DeviceState& state = state_of(dx.device);
  with_float(x.dtype, [&]<class T>() {
    with_unary(f, [&]<Unary U>() { map(state, x.elements(), Gradient<U, T>{}, dx.as<T>(), x.as<const T>(), dy.as<const T>()); });
  });
}

// N neighbouring columns of a gate and of its factor at a time. Backward: dy read and dz written, else y.
template <Activation F, bool kBackward, class T, int N>
__global__ void __launch_bounds__(kElementThreads) gated_kernel(int64_t packs, int64_t width, const T* z, const T* dy, T* to) {
  for (int64_t p = int64_t(blockIdx.x) * kElementThreads + threadIdx.x; p < packs; p += int64_t(gridDim.x) * kElementThreads) {
    using A = Accumulator<T>;
    const int64_t at = p * N, in = at + at / width * width;
    const Pack<T, N> gates = *reinterpret_cast<const Pack<T, N>*>(z + in), ups = *reinterpret_cast<const Pack<T, N>*>(z + in + width);
    if constexpr (kBackward) {
      const Pack<T, N> d = *reinterpret_cast<const Pack<T, N>*>(dy + at);
      Pack<T, N> d_gates, d_ups;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const A gate = load(gates.at[j]), up = load(ups.at[j]), g = load(d.at[j]);
        d_gates.at[j] = store<T>(g * up_factor<F, A>(up) * slope<F, false, A>(gate));
        d_ups.at[j] = store<T>(up_slope<F, A>(up, g * activate<F, false, A>(gate)));
      }
      *reinterpret_cast<Pack<T, N>*>(to + in) = d_gates;
      *reinterpret_cast<Pack<T, N>*>(to + in + width) = d_ups;
    } else {
      Pack<T, N> out;
#pragma unroll
      for (int j = 0; j < N; ++j) out.at[j] = store<T>(activate<F, false, A>(load(gates.at[j])) * up_factor<F, A>(load(ups.at[j])));
      *reinterpret_cast<Pack<T, N>*>(to + at) = out;
    }
  }
}

template <bool kBackward> void run_gated(Activation f, const TensorView& z, const TensorView& dy, const TensorView& to) {
  const DeviceState& state = state_of(z.device);
  const int64_t width = z.shape[-1] / 2, n = z.elements() / 2;
  with_float(z.dtype, [&]<class T>() {
    const auto run = [&]<int N>() {
      with_activation(f, [&]<Activation F>() {
        launch(state, gated_kernel<F, kBackward, T, N>, grid_for(state, n / N, kElementThreads, 8), kElementThreads, 0, n / N, width, z.as<const T>(), dy.as<const T>(),
               to.as<T>());
      });
    };
    constexpr size_t bytes = sizeof(Pack<T, kPack<T>>);
    if (width % kPack<T> == 0 && aligned_to(z.data, bytes) && aligned_to(dy.data, bytes) && aligned_to(to.data, bytes)) run.template operator()<kPack<T>>();
    else run.template operator()<1>();
  });
}

void gated(Activation f, const TensorView& z, const TensorView& y) { run_gated<false>(f, z, {}, y); }
void gated_backward(Activation f, const TensorView& z, const TensorView& dy, const TensorView& dz) { run_gated<true>(f, z, dy, dz); }

template <Binary F> struct Combine {
  template <class A> __device__ A operator()(A a, A b) const {
    if constexpr (F == Binary::add) return a + b;
    else if constexpr (F == Binary::subtract) return a - b;
    else if constexpr (F == Binary::multiply) return a * b;
    else if constexpr (F == Binary::divide) return a / b;
    else if constexpr (F == Binary::maximum) return a > b || a != a ? a : b;  // a NaN wins
    else if constexpr (F == Binary::minimum) return a < b || a != a ? a : b;
    else if constexpr (F == Binary::greater) return A(a > b);
    else if constexpr (F == Binary::greater_equal) return A(a >= b);
    else return A(a == b);
  }
};

template <Binary F, class T> struct Pairwise {
  __device__ T operator()(T a, T b) const { return store<T>(Combine<F>{}(load(a), load(b))); }
};

template <Binary F, class T> __global__ void __launch_bounds__(kElementThreads) broadcast_kernel(int64_t n, Walk w, const T* a, const T* b, T* y) {
  for (int64_t i = int64_t(blockIdx.x) * kElementThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kElementThreads) {
    int64_t rest = i, ia = 0, ib = 0;
#pragma unroll
    for (int axis = kMaxRank - 1; axis >= 0; --axis) {
      if (axis >= w.rank) continue;
      const int64_t at = rest % w.sizes[axis];
      rest /= w.sizes[axis];
      ia += at * w.a[axis];
      ib += at * w.b[axis];
    }
    y[i] = store<T>(Combine<F>{}(load(a[ia]), load(b[ib])));
  }
}

void binary(Binary f, const TensorView& a, const TensorView& b, const TensorView& y, const Broadcast& broadcast) {
  const DeviceState& state = state_of(y.device);
  const Walk w = merged(broadcast);
  const int64_t n = y.elements();
  const bool alike = w.rank == 0 || (w.rank == 1 && w.a[0] == 1 && w.b[0] == 1);
  with_float(y.dtype, [&]<class T>() {
    with_binary(f, [&]<Binary F>() {
      if (alike) map(state, n, Pairwise<F, T>{}, y.as<T>(), a.as<const T>(), b.as<const T>());
      else launch(state, broadcast_kernel<F, T>, grid_for(state, n, kElementThreads), kElementThreads, 0, n, w, a.as<const T>(), b.as<const T>(), y.as<T>());
    });
  });
}

template <class T> struct Affine {
  Accumulator<T> alpha, beta;
  __device__ T operator()(T x) const { return store<T>(fma(load(x), alpha, beta)); }
};

void affine(const TensorView& x, const TensorView& y, double alpha, double beta) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    map(state_of(y.device), x.elements(), Affine<T>{A(alpha), A(beta)}, y.as<T>(), x.as<const T>());
  });
}

template <class T, class Y> struct Accumulate {
  Accumulator<T> alpha;
  __device__ Y operator()(T x, Y y) const { return store<Y>(fma(load(x), alpha, load(y))); }
};

void accumulate(const TensorView& x, const TensorView& y, double alpha) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const auto run = [&]<class Y>(Y* out) { map(state_of(y.device), x.elements(), Accumulate<T, Y>{A(alpha)}, out, x.as<const T>(), static_cast<const Y*>(out)); };
    if (y.dtype == x.dtype) run(y.as<T>());
    else run(y.as<A>());
  });
}

template <class F> void with_any(Dtype dtype, F&& body) {
  switch (dtype) {
    case Dtype::f32: return body.template operator()<float>();
    case Dtype::bf16: return body.template operator()<bf16>();
    case Dtype::f64: return body.template operator()<double>();
    case Dtype::f16: return body.template operator()<f16>();
    case Dtype::i32: return body.template operator()<int32_t>();
    case Dtype::i64: return body.template operator()<int64_t>();
    case Dtype::u8: return body.template operator()<uint8_t>();
    case Dtype::boolean: return body.template operator()<bool>();
  }
}

template <class From> __device__ inline auto value_of(From x) {
  if constexpr (std::is_same_v<From, bf16>) return load(x);
  else if constexpr (std::is_same_v<From, f16>) return ptx::from_f16_bits(x.bits);
  else return x;
}

// As the CPU converts: integers directly, everything else through what the source is.
template <class To, class From> struct Convert {
  __device__ To operator()(From stored) const {
    const auto x = value_of(stored);
    if constexpr (std::is_same_v<To, bool>) return x != decltype(x)(0);
    else if constexpr (std::is_same_v<To, bf16>) return store<bf16>(float(x));
    else if constexpr (std::is_same_v<To, f16>) {
      f16 y;
      y.bits = ptx::f16_bits(float(x));
      return y;
    } else return To(x);
  }
};

void cast(const TensorView& x, const TensorView& y) {
  const DeviceState& state = state_of(y.device);
  with_any(x.dtype, [&]<class From>() { with_any(y.dtype, [&]<class To>() { map(state, x.elements(), Convert<To, From>{}, y.as<To>(), x.as<const From>()); }); });
}

template <class T> __global__ void __launch_bounds__(kElementThreads) mxfp4_kernel(int64_t bytes, const uint8_t* blocks, const uint8_t* scales, T* y) {
  for (int64_t i = int64_t(blockIdx.x) * kElementThreads + threadIdx.x; i < bytes; i += int64_t(gridDim.x) * kElementThreads) {
    const uint8_t pair = blocks[i], exponent = scales[i / 16];
    const float scale = exponent == 255 ? NAN : ldexpf(1.0f, int(exponent) - 127);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int bits = j ? pair >> 4 : pair & 15, e = bits >> 1 & 3, m = bits & 1;
      const float size = e == 0 ? 0.5f * float(m) : ldexpf(1.0f + 0.5f * float(m), e - 1);
      y[2 * i + j] = store<T>((bits & 8 ? -size : size) * scale);
    }
  }
}

void dequantise_mxfp4(const TensorView& blocks, const TensorView& scales, const TensorView& y) {
  const DeviceState& state = state_of(y.device);
  const int64_t n = blocks.elements();
  with_float(y.dtype, [&]<class T>() {
    launch(state, mxfp4_kernel<T>, grid_for(state, n, kElementThreads), kElementThreads, 0, n, blocks.as<const uint8_t>(), scales.as<const uint8_t>(), y.as<T>());
  });
}

template <class T> struct Constant {
  T value;
  __device__ T operator()() const { return value; }
};

template <class To> To converted(double x) {
  if constexpr (std::is_same_v<To, bool>) return x != 0;
  else if constexpr (std::is_arithmetic_v<To>) return To(x);
  else return To(float(x));
}

void fill(const TensorView& y, double value) {
  with_any(y.dtype, [&]<class T>() { map(state_of(y.device), y.elements(), Constant<T>{converted<T>(value)}, y.as<T>()); });
}

template <class T> struct Choose {
  __device__ T operator()(bool mask, T a, T b) const { return mask ? a : b; }
};

void where(const TensorView& mask, const TensorView& a, const TensorView& b, const TensorView& y) {
  with_float(y.dtype, [&]<class T>() { map(state_of(y.device), y.elements(), Choose<T>{}, y.as<T>(), mask.as<const bool>(), a.as<const T>(), b.as<const T>()); });
}

}  // namespace

extern const ElementwiseOps elementwise_ops;
const ElementwiseOps elementwise_ops = {unary, unary_backward, gated, gated_backward, binary, affine, accumulate, cast, dequantise_mxfp4, fill, where};

}  // namespace libmoe::cuda

// Bound by memory: each operation reads its inputs and writes its output once; pieces of 16 Ki elements go to the threads.
#include "ops/elementwise.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/simd/ffn_epilogue.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kPiece = 16384;

// Calls body(offset, count) for whole vectors of every piece.
template <class A, class F> void each_vector(int64_t n, F&& body) {
  parallel_ranges(n, kPiece, [&](int64_t begin, int64_t end) { for_vectors<A>(end - begin, [&](int64_t i, int count) { body(begin + i, count); }); });
}

void unary(Unary f, const TensorView& x, const TensorView& y) {
  with_float(x.dtype, [&]<class T>() {
    with_unary(f, [&]<Unary U>() {
      using A = Accumulator<T>;
      const T* in = x.as<T>();
      T* out = y.as<T>();
      each_vector<A>(x.elements(), [&](int64_t i, int count) { store_count(out + i, apply<U, A>(load_count(in + i, count)), count); });
    });
  });
}

void unary_backward(Unary f, const TensorView& x, const TensorView& dy, const TensorView& dx) {
  with_float(x.dtype, [&]<class T>() {
    with_unary(f, [&]<Unary U>() {
      using A = Accumulator<T>;
      const T *in = x.as<T>(), *g = dy.as<T>();
      T* out = dx.as<T>();
      each_vector<A>(x.elements(),
                     [&](int64_t i, int count) { store_count(out + i, load_count(g + i, count) * derivative<U, A>(load_count(in + i, count)), count); });
    });
  });
}

// Calls body(offset in z, offset in y, count) for whole vectors of every row; the factor of what lies at z's offset lies `width` further.
template <class A, class F> void each_gated(const TensorView& y, F&& body) {
  const int64_t width = y.shape[-1], rows = width ? y.elements() / width : 0;
  parallel_ranges(rows, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) for_vectors<A>(width, [&](int64_t j, int count) { body(2 * r * width + j, r * width + j, count); });
  });
}

void gated(Activation f, const TensorView& z, const TensorView& y) {
  with_float(z.dtype, [&]<class T>() {
    with_activation(f, [&]<Activation F>() {
      using A = Accumulator<T>;
      const T* in = z.as<T>();
      T* out = y.as<T>();
      const int64_t width = y.shape[-1];
      each_gated<A>(y, [&](int64_t i, int64_t o, int count) {
        store_count(out + o, activate<F, A>(load_count(in + i, count)) * up_factor<F, A>(load_count(in + i + width, count)), count);
      });
    });
  });
}

void gated_backward(Activation f, const TensorView& z, const TensorView& dy, const TensorView& dz) {
  with_float(z.dtype, [&]<class T>() {
    with_activation(f, [&]<Activation F>() {
      using A = Accumulator<T>;
      const T *in = z.as<T>(), *g = dy.as<T>();
      T* out = dz.as<T>();
      const int64_t width = dy.shape[-1];
      each_gated<A>(dy, [&](int64_t i, int64_t o, int count) {
        const Vec<A> d = load_count(g + o, count), gate = load_count(in + i, count), up = load_count(in + i + width, count);
        store_count(out + i, d * up_factor<F, A>(up) * slope<F, A>(gate), count);
        store_count(out + i + width, up_slope<F, A>(up, d * activate<F, A>(gate)), count);
      });
    });
  });
}

template <Binary F, class A> inline Vec<A> combine(Vec<A> a, Vec<A> b) {
  const Vec<A> one(A(1)), zero = Vec<A>::zero();
  if constexpr (F == Binary::add) return a + b;
  if constexpr (F == Binary::subtract) return a - b;
  if constexpr (F == Binary::multiply) return a * b;
  if constexpr (F == Binary::divide) return a / b;
  if constexpr (F == Binary::maximum) return select<A>((a.v > b.v) | (a.v != a.v), a, b);  // a NaN wins
  if constexpr (F == Binary::minimum) return select<A>((a.v < b.v) | (a.v != a.v), a, b);
  if constexpr (F == Binary::greater) return select<A>(a.v > b.v, one, zero);
  if constexpr (F == Binary::greater_equal) return select<A>(a.v >= b.v, one, zero);
  if constexpr (F == Binary::equal) return select<A>(a.v == b.v, one, zero);
}

void binary(Binary f, const TensorView& a, const TensorView& b, const TensorView& y, const Broadcast& broadcast) {
  Walk w = merged(broadcast);
  if (w.rank == 0) w.sizes[w.rank++] = y.elements();
  const int inner = w.rank - 1;
  const int64_t width = w.sizes[inner], rows = width ? y.elements() / width : 0;
  with_float(y.dtype, [&]<class T>() {
    with_binary(f, [&]<Binary F>() {
      using A = Accumulator<T>;
      const auto row = [&](int64_t r, int64_t begin, int64_t end) {
        const T *pa = a.as<T>(), *pb = b.as<T>();
        int64_t rest = r;
        for (int i = inner - 1; i >= 0; --i) {
          pa += rest % w.sizes[i] * w.a[i];
          pb += rest % w.sizes[i] * w.b[i];
          rest /= w.sizes[i];
        }
        T* out = y.as<T>() + r * width;
        for_vectors<A>(end - begin, [&](int64_t k, int count) {
          const int64_t i = begin + k;
          const Vec<A> va = w.a[inner] ? load_count(pa + i, count) : Vec<A>(A(*pa)), vb = w.b[inner] ? load_count(pb + i, count) : Vec<A>(A(*pb));
          store_count(out + i, combine<F, A>(va, vb), count);
        });
      };
      if (rows == 1) parallel_ranges(width, kPiece, [&](int64_t begin, int64_t end) { row(0, begin, end); });
      else
        parallel_ranges(rows, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r) row(r, 0, width);
        });
    });
  });
}

void affine(const TensorView& x, const TensorView& y, double alpha, double beta) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Vec<A> scale{A(alpha)}, shift{A(beta)};
    const T* in = x.as<T>();
    T* out = y.as<T>();
    each_vector<A>(x.elements(), [&](int64_t i, int count) { store_count(out + i, fma(load_count(in + i, count), scale, shift), count); });
  });
}

void accumulate(const TensorView& x, const TensorView& y, double alpha) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Vec<A> scale{A(alpha)};
    const T* in = x.as<T>();
    const auto run = [&]<class Y>(Y* out) {
      each_vector<A>(x.elements(), [&](int64_t i, int count) { store_count(out + i, fma(load_count(in + i, count), scale, load_count(out + i, count)), count); });
    };
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

// The type a value passes through: f64 keeps every f32 and every integer up to 2^53; integer pairs go directly.
template <class To, class From> inline To convert(From x) {
  constexpr bool integers = std::is_integral_v<To> && std::is_integral_v<From>;
  if constexpr (std::is_same_v<To, bool>) {
    if constexpr (std::is_arithmetic_v<From>) return x != From(0);
    else return float(x) != 0.f;
  }
  else if constexpr (integers || (std::is_arithmetic_v<To> && std::is_arithmetic_v<From>)) return To(x);
  else if constexpr (std::is_arithmetic_v<To>) return To(float(x));
  else return To(float(x));
}

void cast(const TensorView& x, const TensorView& y) {
  with_any(x.dtype, [&]<class From>() {
    with_any(y.dtype, [&]<class To>() {
      const From* in = x.as<From>();
      To* out = y.as<To>();
      constexpr bool vectors = (std::is_same_v<From, float> && std::is_same_v<To, bf16>) || (std::is_same_v<From, bf16> && std::is_same_v<To, float>);
      if constexpr (vectors) each_vector<float>(x.elements(), [&](int64_t i, int count) { store_count(out + i, load_count(in + i, count), count); });
      else
        parallel_ranges(x.elements(), kPiece, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) out[i] = convert<To, From>(in[i]);
        });
    });
  });
}

void dequantise_mxfp4(const TensorView& blocks, const TensorView& scales, const TensorView& y) {
  constexpr float kValues[16] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  with_float(y.dtype, [&]<class T>() {
    const uint8_t *in = blocks.as<uint8_t>(), *exponents = scales.as<uint8_t>();
    T* out = y.as<T>();
    parallel_ranges(scales.elements(), kPiece / 32, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        const float scale = exponents[group] == 255 ? __builtin_nanf("") : std::ldexp(1.0f, int(exponents[group]) - 127);
        for (int64_t i = 0; i < 16; ++i) {
          const uint8_t pair = in[group * 16 + i];
          out[group * 32 + 2 * i] = T(kValues[pair & 15] * scale);
          out[group * 32 + 2 * i + 1] = T(kValues[pair >> 4] * scale);
        }
      }
    });
  });
}

void fill(const TensorView& y, double value) {
  with_any(y.dtype, [&]<class T>() {
    const T v = convert<T, double>(value);
    T* out = y.as<T>();
    parallel_ranges(y.elements(), kPiece, [&](int64_t begin, int64_t end) { std::fill(out + begin, out + end, v); });
  });
}

void where(const TensorView& mask, const TensorView& a, const TensorView& b, const TensorView& y) {
  with_float(y.dtype, [&]<class T>() {
    parallel_ranges(y.elements(), kPiece, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y.as<T>()[i] = mask.as<bool>()[i] ? a.as<T>()[i] : b.as<T>()[i];
    });
  });
}

}  // namespace

extern const ElementwiseOps elementwise_ops;
const ElementwiseOps elementwise_ops = {unary, unary_backward, gated, gated_backward, binary, affine, accumulate, cast, dequantise_mxfp4, fill, where};

}  // namespace libmoe::cpu::LIBMOE_ISA

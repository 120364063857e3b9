// Bound by arithmetic (ten Philox rounds per four words). Elements are made in blocks of kBlock, aligned to the element index, so that threads and
// lengths change nothing; logarithm and circle functions are our own polynomials.
#include "ops/random.h"

#include <algorithm>
#include <limits>

#include "core/dispatch.h"
#include "core/philox.h"
#include "core/thread_pool.h"
#include "cpu/simd/math.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kBlock = 256;         // elements
constexpr int64_t kPiece = 64 * kBlock;  // elements per thread item

// Calls body(first element, count, words) for each block of the elements begin .. end, begin a multiple of kBlock. f32: element i of the block has the word
// words[i]; f64: the words words[2i] and words[2i + 1]. Words of up to a whole number of pairs are there.
template <int WordsPerElement, class F> void blocks_between(int64_t begin, int64_t end, RandomSource source, F&& body) {
  alignas(64) uint32_t words[kBlock * WordsPerElement] = {};
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = std::min(kBlock, end - first), counters = (count * WordsPerElement + 3) / 4;
    const uint64_t counter = uint64_t(first) * WordsPerElement / 4;
    for (int64_t c = 0; c < counters; ++c) {
      const auto four = philox(source.seed, source.stream, counter + uint64_t(c));
      for (int k = 0; k < 4; ++k) words[c * 4 + k] = four[size_t(k)];
    }
    body(first, int(count), words);
  }
}
template <int WordsPerElement, class F> void each_block(int64_t n, RandomSource source, F&& body) {
  parallel_ranges(n, kPiece, [&](int64_t begin, int64_t end) { blocks_between<WordsPerElement>(begin, end, source, body); });
}

template <class A> constexpr int kWords = sizeof(A) == 4 ? 1 : 2;

// Uniform in [0, 1).
inline float unit(const uint32_t* words, int i, float) { return uniform_f32(words[i]); }
inline double unit(const uint32_t* words, int i, double) { return uniform_f64(words[2 * i], words[2 * i + 1]); }
// Uniform in (0, 1], fine near zero, for logarithms.
inline float positive(const uint32_t* words, int i, float) { return (float(words[i]) + 0.5f) * 0x1p-32f; }
inline double positive(const uint32_t* words, int i, double) { return uniform_f64(words[2 * i], words[2 * i + 1]) + 0x1p-54; }

// sin and cos of 2 pi t, t in [0, 1): quarter turns are exact, the rest is a series on [-pi/4, pi/4].
template <class T> void turn(Vec<T> t, Vec<T>& sine, Vec<T>& cosine) {
  using V = Vec<T>;
  using I = typename V::RawInt;
  const V quarter = math_detail::nearest(t * V(T(4)));
  const V x = fma(quarter, V(T(-0.25)), t) * V(T(6.283185307179586477));
  const V z = x * x;
  V s, c;
  if constexpr (sizeof(T) == 4) {
    s = math_detail::polynomial<T>(z, {T(1.0 / 362880), T(-1.0 / 5040), T(1.0 / 120), T(-1.0 / 6), T(1)});
    c = math_detail::polynomial<T>(z, {T(-1.0 / 3628800), T(1.0 / 40320), T(-1.0 / 720), T(1.0 / 24), T(-0.5), T(1)});
  } else {
    s = math_detail::polynomial<T>(z, {T(-1.0 / 121645100408832000.0), T(1.0 / 355687428096000.0), T(-1.0 / 1307674368000.0), T(1.0 / 6227020800.0), T(-1.0 / 39916800),
                                       T(1.0 / 362880), T(-1.0 / 5040), T(1.0 / 120), T(-1.0 / 6), T(1)});
    c = math_detail::polynomial<T>(z, {T(1.0 / 2432902008176640000.0), T(-1.0 / 6402373705728000.0), T(1.0 / 20922789888000.0), T(-1.0 / 87178291200.0),
                                       T(1.0 / 479001600), T(-1.0 / 3628800), T(1.0 / 40320), T(-1.0 / 720), T(1.0 / 24), T(-0.5), T(1)});
  }
  s = s * x;
  const I q = __builtin_convertvector(quarter.v, I);
  const I odd = (q & 1) != 0;
  const V ss = select<T>(odd, c, s), cc = select<T>(odd, s, c);
  sine = select<T>((q & 2) != 0, -ss, ss);
  cosine = select<T>(((q + 1) & 2) != 0, -cc, cc);
}

template <class T> struct Uniform {
  using A = Accumulator<T>;
  const A low, width, top, last;  // last: the largest value below high, which rounding of low + width u must not reach
  Uniform(double l, double h) : low(A(l)), width(A(h - l)), top(A(h)), last(l < h ? std::nextafter(top, low) : top) {}
  void operator()(int count, const uint32_t* words, T* y) const {
    for (int i = 0; i < count; ++i) {
      const A v = low + width * unit(words, i, A());
      y[i] = T(low < top && v >= top ? last : v);
    }
  }
};

void uniform(const TensorView& y, RandomSource source, double low, double high) {
  with_float(y.dtype, [&]<class T>() {
    const Uniform<T> fill(low, high);
    each_block<kWords<Accumulator<T>>>(y.elements(), source, [&](int64_t first, int count, const uint32_t* words) { fill(count, words, y.as<T>() + first); });
  });
}

void uniform_rows(const TensorView& y, const TensorView& streams, uint64_t seed, double low, double high) {
  const int64_t rows = y.shape[0], n = y.shape[1];
  with_float(y.dtype, [&]<class T>() {
    const Uniform<T> fill(low, high);
    parallel_ranges(rows, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, n)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        blocks_between<kWords<Accumulator<T>>>(0, n, {seed, uint64_t(streams.as<int32_t>()[r])},
                                               [&](int64_t first, int count, const uint32_t* words) { fill(count, words, y.as<T>() + r * n + first); });
    });
  });
}

void normal(const TensorView& y, RandomSource source, double mean, double deviation) {
  with_float(y.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    constexpr int L = Vec<A>::lanes;
    const Vec<A> m{A(mean)}, d{A(deviation)};
    each_block<kWords<A>>(y.elements(), source, [&](int64_t first, int count, const uint32_t* words) {
      // Element 2p takes the cosine, 2p + 1 the sine of the pair p.
      alignas(64) A radius[kBlock / 2], angle[kBlock / 2], value[kBlock];
      for (int p = 0; p < kBlock / 2; ++p) {
        radius[p] = positive(words, 2 * p, A());
        angle[p] = unit(words, 2 * p + 1, A());
      }
      for (int p = 0; p < kBlock / 2; p += L) {
        const Vec<A> r = sqrt(max(Vec<A>(A(-2)) * log(load(radius + p)), Vec<A>::zero()));
        Vec<A> s, c;
        turn(load(angle + p), s, c);
        store(radius + p, fma(r * c, d, m));
        store(angle + p, fma(r * s, d, m));
      }
      for (int p = 0; p < kBlock / 2; ++p) {
        value[2 * p] = radius[p];
        value[2 * p + 1] = angle[p];
      }
      for (int i = 0; i < count; ++i) y.as<T>()[first + i] = T(value[i]);
    });
  });
}

double polynomial(double x, std::initializer_list<double> coefficients) {
  double r = 0;
  for (double c : coefficients) r = r * x + c;
  return r;
}

// Inverse of the normal distribution function for p in [1e-10, 1 - 1e-10] (Wichura, "Algorithm AS 241", 1988; about 16 digits).
double normal_quantile(double p) {
  const double q = p - 0.5;
  if (q >= -0.425 && q <= 0.425) {
    const double r = 0.180625 - q * q;
    return q *
           polynomial(r, {2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457, 13731.693765509461125, 1971.5909503065514427,
                          133.14166789178437745, 3.387132872796366608}) /
           polynomial(r, {5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867, 5394.1960214247511077, 687.1870074920579083,
                          42.313330701600911252, 1.0});
  }
  const double tail = q < 0 ? p : 1 - p;
  const double r = std::sqrt(-log(Vec<double>(tail)).v[0]) - 1.6;
  const double z = polynomial(r, {7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258, 3.64784832476320460504,
                                  5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734}) /
                   polynomial(r, {1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459, 0.68976733498510000455,
                                  1.6763848301838038494, 2.05319162663775882187, 1.0});
  return q < 0 ? -z : z;
}

void truncated_normal(const TensorView& y, RandomSource source, double deviation, double bound) {
  // Mass below -bound; from 6.2 on it is beyond what 32-bit uniforms reach.
  const double edge = std::min(bound, 6.2), below = 0.5 * (1 - erf(Vec<double>(edge * 0.70710678118654752440)).v[0]);
  with_float(y.dtype, [&]<class T>() {
    // One word per element for every type: the f64 stream rounds to the f32 one.
    each_block<1>(y.elements(), source, [&](int64_t first, int count, const uint32_t* words) {
      for (int i = 0; i < count; ++i) {
        const double u = (double(words[i]) + 0.5) * 0x1p-32;
        const double z = std::clamp(normal_quantile(below + u * (1 - 2 * below)), -edge, edge);
        y.as<T>()[first + i] = T(Accumulator<T>(z * deviation));
      }
    });
  });
}

void bernoulli(const TensorView& y, RandomSource source, double probability) {
  const auto run = [&]<class T>(T* out, T one, T zero) {
    each_block<1>(y.elements(), source, [&](int64_t first, int count, const uint32_t* words) {
      for (int i = 0; i < count; ++i) out[first + i] = double(words[i]) * 0x1p-32 < probability ? one : zero;
    });
  };
  if (y.dtype == Dtype::boolean || y.dtype == Dtype::u8) return run(y.as<uint8_t>(), uint8_t(1), uint8_t(0));
  with_float(y.dtype, [&]<class T>() { run(y.as<T>(), T(1.f), T(0.f)); });
}

void permutation(const TensorView& y, RandomSource source) {
  int32_t* out = y.as<int32_t>();
  const int64_t n = y.elements();
  for (int64_t i = 0; i < n; ++i) out[i] = int32_t(i);
  for (int64_t i = n - 1; i > 0; --i) {
    const auto w = philox(source.seed, source.stream, uint64_t(i));
    // The high half of a 64 x 32 bit product: uniform in [0, i] up to 2^-33.
    const uint64_t word = (uint64_t(w[0]) << 32) | w[1], m = uint64_t(i) + 1;
    const uint64_t j = ((word >> 32) * m + ((word & 0xffffffffu) * m >> 32)) >> 32;
    std::swap(out[i], out[j]);
  }
}

}  // namespace

extern const RandomOps random_ops;
const RandomOps random_ops = {uniform, uniform_rows, normal, truncated_normal, bernoulli, permutation};

}  // namespace libmoe::cpu::LIBMOE_ISA

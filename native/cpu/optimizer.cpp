// Bound by memory: AdamW reads parameter, gradient and both moments and writes three of them, 28 bytes per f32 parameter, once. All tensors are cut
// into fixed pieces that go to the threads together, so that many small tensors cost one hand-out.
#include "ops/optimizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kPiece = 16384;

struct Piece {
  size_t tensor;
  int64_t begin, end;
};
template <class Size> std::vector<Piece> pieces_of(size_t tensors, Size&& size) {
  std::vector<Piece> pieces;
  for (size_t t = 0; t < tensors; ++t)
    for (int64_t n = size(t), begin = 0; begin < n; begin += kPiece) pieces.push_back({t, begin, std::min(n, begin + kPiece)});
  return pieces;
}

// x^n by squaring: the library's pow may differ between machines.
double power(double x, int64_t n) {
  double r = 1;
  for (; n > 0; n >>= 1, x *= x)
    if (n & 1) r *= x;
  return r;
}

// Calls body<Parameter type, gradient type>.
template <class F> void with_types(const TensorView& parameter, const TensorView& gradient, F&& body) {
  with_float(parameter.dtype, [&]<class T>() {
    if (gradient.dtype == parameter.dtype) body.template operator()<T, T>();
    else body.template operator()<T, Accumulator<T>>();
  });
}

// Loads the parameter from its master where there is one, and stores both.
template <class T> struct Weights {
  using A = Accumulator<T>;
  T* parameter;
  A* master;
  Vec<A> read(int64_t i, int count) const { return master ? load_count(master + i, count) : load_count(parameter + i, count); }
  void write(int64_t i, int count, Vec<A> p) const {
    if (master) store_count(master + i, p, count);
    store_count(parameter + i, p, count);
  }
};

// What gradients are multiplied by; not finite: the step is to change nothing.
double factor_of(double scale, const TensorView& factor) { return factor ? scale * *factor.as<double>() : scale; }

void adamw(const std::vector<AdamwTensor>& tensors, const AdamwOptions& o) {
  const double factor = factor_of(o.gradient_scale, o.factor);
  if (!std::isfinite(factor)) return;
  const double correction1 = 1 - power(o.beta1, o.step), correction2 = std::sqrt(1 - power(o.beta2, o.step));
  const std::vector<Piece> pieces = pieces_of(tensors.size(), [&](size_t t) { return tensors[t].parameter.elements(); });
  parallel_for(int64_t(pieces.size()), [&](int64_t item) {
    const Piece& piece = pieces[size_t(item)];
    const AdamwTensor& t = tensors[piece.tensor];
    with_types(t.parameter, t.gradient, [&]<class T, class G>() {
      using A = Accumulator<T>;
      using V = Vec<A>;
      const Weights<T> weights{t.parameter.as<T>(), t.master ? t.master.as<A>() : nullptr};
      const G* g = t.gradient.as<G>();
      A *m = t.first_moment.as<A>(), *v = t.second_moment.as<A>();
      const V scale{A(factor)}, decay(A(1 - o.learning_rate * t.weight_decay)), take1(A(1 - o.beta1)), keep2(A(o.beta2)), take2(A(1 - o.beta2)),
          root{A(correction2)}, epsilon(A(o.epsilon)), rate(A(-(o.learning_rate / correction1)));
      for_vectors<A>(piece.end - piece.begin, [&](int64_t k, int count) {
        const int64_t i = piece.begin + k;
        const V gradient = load_count(g + i, count) * scale, m0 = load_count(m + i, count);
        const V m1 = fma(take1, gradient - m0, m0), v1 = fma(take2 * gradient, gradient, load_count(v + i, count) * keep2);
        store_count(m + i, m1, count);
        store_count(v + i, v1, count);
        weights.write(i, count, fma(rate, m1 / (sqrt(v1) / root + epsilon), weights.read(i, count) * decay));
      });
    });
  });
}

void sgd(const std::vector<SgdTensor>& tensors, const SgdOptions& o) {
  const double factor = factor_of(o.gradient_scale, o.factor);
  if (!std::isfinite(factor)) return;
  const std::vector<Piece> pieces = pieces_of(tensors.size(), [&](size_t t) { return tensors[t].parameter.elements(); });
  parallel_for(int64_t(pieces.size()), [&](int64_t item) {
    const Piece& piece = pieces[size_t(item)];
    const SgdTensor& t = tensors[piece.tensor];
    with_types(t.parameter, t.gradient, [&]<class T, class G>() {
      using A = Accumulator<T>;
      using V = Vec<A>;
      const Weights<T> weights{t.parameter.as<T>(), t.master ? t.master.as<A>() : nullptr};
      const G* g = t.gradient.as<G>();
      A* buffer = t.momentum ? t.momentum.as<A>() : nullptr;
      const V scale{A(factor)}, decay(A(t.weight_decay)), momentum(A(o.momentum)), rate(A(-o.learning_rate));
      for_vectors<A>(piece.end - piece.begin, [&](int64_t k, int count) {
        const int64_t i = piece.begin + k;
        const V p = weights.read(i, count);
        V step = fma(decay, p, load_count(g + i, count) * scale);
        if (buffer) {
          const V b = fma(momentum, load_count(buffer + i, count), step);
          store_count(buffer + i, b, count);
          step = o.nesterov ? fma(momentum, b, step) : b;
        }
        weights.write(i, count, fma(rate, step, p));
      });
    });
  });
}

// Sixteen running sums in f64, whatever the length: element i goes to sum i mod 16.
template <class T> double sum_of_squares(const T* x, int64_t n) {
  using A = Accumulator<T>;
  constexpr int kSums = 16;
  double s[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int k = 0; k < kSums; ++k) s[k] += double(A(x[i + k])) * double(A(x[i + k]));
  for (int k = 0; i + k < n; ++k) s[k] += double(A(x[i + k])) * double(A(x[i + k]));
  for (int width = kSums / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k) s[k] += s[k + width];
  return s[0];
}

void global_norm(const std::vector<TensorView>& tensors, const TensorView& norm) {
  const std::vector<Piece> pieces = pieces_of(tensors.size(), [&](size_t t) { return tensors[t].elements(); });
  std::vector<double> sums(pieces.size());
  parallel_for(int64_t(pieces.size()), [&](int64_t item) {
    const Piece& p = pieces[size_t(item)];
    with_float(tensors[p.tensor].dtype, [&]<class T>() { sums[size_t(item)] = sum_of_squares(tensors[p.tensor].as<T>() + p.begin, p.end - p.begin); });
  });
  double total = 0;
  for (const double s : sums) total += s;
  *norm.as<double>() = std::sqrt(total);
}

void clip_factor(const TensorView& norm, const std::vector<TensorView>& losses, double limit, const TensorView& factor) {
  bool finite = std::isfinite(*norm.as<double>());
  for (const TensorView& loss : losses)
    for (int64_t i = 0; i < loss.elements(); ++i) finite &= std::isfinite(loss.dtype == Dtype::f64 ? loss.as<double>()[i] : double(loss.as<float>()[i]));
  const double wanted = std::isinf(limit) ? 1.0 : limit / (*norm.as<double>() + 1e-6);
  *factor.as<double>() = !finite ? std::nan("") : std::min(1.0, wanted);
}

// NaN and infinity have all exponent bits set.
template <class Bits> bool any_non_finite(const Bits* x, int64_t n, Bits exponent) {
  bool found = false;
  for (int64_t i = 0; i < n; ++i) found |= (x[i] & exponent) == exponent;
  return found;
}

int64_t non_finite(const std::vector<TensorView>& tensors) {
  const std::vector<Piece> pieces = pieces_of(tensors.size(), [&](size_t t) { return tensors[t].elements(); });
  std::vector<uint8_t> bad(pieces.size());
  parallel_for(int64_t(pieces.size()), [&](int64_t item) {
    const Piece& p = pieces[size_t(item)];
    const TensorView& t = tensors[p.tensor];
    const int64_t n = p.end - p.begin;
    bad[size_t(item)] = t.dtype == Dtype::f64   ? any_non_finite<uint64_t>(t.as<uint64_t>() + p.begin, n, 0x7ff0000000000000u)
                        : t.dtype == Dtype::f32 ? any_non_finite<uint32_t>(t.as<uint32_t>() + p.begin, n, 0x7f800000u)
                                                : any_non_finite<uint16_t>(t.as<uint16_t>() + p.begin, n, uint16_t(0x7f80));
  });
  for (size_t i = 0; i < pieces.size(); ++i)
    if (bad[i]) return int64_t(pieces[i].tensor);
  return -1;
}

}  // namespace

extern const OptimizerOps optimizer_ops;
const OptimizerOps optimizer_ops = {adamw, sgd, global_norm, clip_factor, non_finite};

}  // namespace libmoe::cpu::LIBMOE_ISA

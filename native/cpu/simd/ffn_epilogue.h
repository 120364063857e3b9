#pragma once
// What grouped_ffn does to a tile of sums while it is in L1: activation going forward, its derivative going back.
#include "cpu/simd/activation.h"
#include "ops/grouped_ffn.h"

namespace libmoe::cpu::LIBMOE_ISA {

// Bound of what enters clamped_swiglu. A NaN stays one.
template <class A> inline Vec<A> below_limit(Vec<A> z) {
  const Vec<A> limit(A(7));
  return select<A>(z.v > limit.v, limit, z);
}
template <class A> inline Vec<A> above_limit(Vec<A> z) {
  const Vec<A> limit(A(-7));
  return select<A>(z.v < limit.v, limit, z);
}

template <Activation F, class A> inline Vec<A> activate(Vec<A> z) {
  if constexpr (F == Activation::identity) return z;
  if constexpr (F == Activation::relu) return apply<Unary::relu, A>(z);
  if constexpr (F == Activation::silu) return apply<Unary::silu, A>(z);
  if constexpr (F == Activation::gelu_erf) return apply<Unary::gelu_erf, A>(z);
  if constexpr (F == Activation::gelu_tanh) return apply<Unary::gelu_tanh, A>(z);
  if constexpr (F == Activation::quick_gelu) return apply<Unary::quick_gelu, A>(z);
  if constexpr (F == Activation::clamped_swiglu) return apply<Unary::quick_gelu, A>(below_limit(z));
}
template <Activation F, class A> inline Vec<A> slope(Vec<A> z) {
  if constexpr (F == Activation::identity) return Vec<A>(A(1));
  if constexpr (F == Activation::relu) return derivative<Unary::relu, A>(z);
  if constexpr (F == Activation::silu) return derivative<Unary::silu, A>(z);
  if constexpr (F == Activation::gelu_erf) return derivative<Unary::gelu_erf, A>(z);
  if constexpr (F == Activation::gelu_tanh) return derivative<Unary::gelu_tanh, A>(z);
  if constexpr (F == Activation::quick_gelu) return derivative<Unary::quick_gelu, A>(z);
  if constexpr (F == Activation::clamped_swiglu) return select<A>(z.v > Vec<A>(A(7)).v, Vec<A>::zero(), derivative<Unary::quick_gelu, A>(z));
}

// The factor that the up rows give, and its slope times `d`.
template <Activation F, class A> inline Vec<A> up_factor(Vec<A> up) {
  if constexpr (F == Activation::clamped_swiglu) return above_limit(below_limit(up)) + Vec<A>(A(1));
  return up;
}
template <Activation F, class A> inline Vec<A> up_slope(Vec<A> up, Vec<A> d) {
  if constexpr (F == Activation::clamped_swiglu) return select<A>(abs(up).v > Vec<A>(A(7)).v, Vec<A>::zero(), d);
  return d;
}

// Forward. A gated tile holds one vector of gate sums and one of up sums per row; an ungated one two vectors of neighbouring columns.
template <class T> struct UpTile {
  using A = Accumulator<T>;
  const T* bias;    // [F] of this expert, or null
  T* z;             // first row of the tile, [rows, F], or null
  T* hidden;        // first row of the tile, [rows, hidden], or null
  int64_t width;    // hidden
  bool gated;
};
template <class T, Activation F> void up_tile(const UpTile<T>& t, int rows, int64_t packed_column, const Accumulator<T>* sums, int64_t stride) {
  using A = Accumulator<T>;
  constexpr int L = Vec<A>::lanes;
  const int64_t full = t.gated ? 2 * t.width : t.width;
  for (int half = 0; half < (t.gated ? 1 : 2); ++half) {
    const int64_t column = t.gated ? packed_column / 2 : packed_column + half * L;
    const int count = int(std::min<int64_t>(L, t.width - column));
    if (count <= 0) return;
    const Vec<A> gate_bias = t.bias ? load_count(t.bias + column, count) : Vec<A>::zero();
    const Vec<A> up_bias = t.bias && t.gated ? load_count(t.bias + t.width + column, count) : Vec<A>::zero();
    for (int r = 0; r < rows; ++r) {
      Vec<A> z = load(sums + r * stride + half * L), up = Vec<A>::zero();
      if (t.bias) z = z + gate_bias;
      if (t.z) store_count(t.z + r * full + column, z, count);
      if (t.gated) {
        up = load(sums + r * stride + L);
        if (t.bias) up = up + up_bias;
        if (t.z) store_count(t.z + r * full + t.width + column, up, count);
      }
      if (!t.hidden) continue;
      const Vec<A> a = activate<F, A>(z);
      store_count(t.hidden + r * t.width + column, t.gated ? a * up_factor<F, A>(up) : a, count);
    }
  }
}

// Backward: sums are dOut * down without the gate weight. Writes dz and the weighted activation, adds <sums, a> to one vector per row.
template <class T> struct SlopeTile {
  using A = Accumulator<T>;
  const T* z;             // first row of the tile, [rows, F]
  T* dz;                  // likewise
  T* weighted;            // first row, [rows, hidden]
  A* products;            // first row, [rows, lanes]
  const A* weight;        // of each row
  int64_t width;
  bool gated;
};
template <class T, Activation F> void slope_tile(const SlopeTile<T>& t, int rows, int64_t first_column, const Accumulator<T>* sums, int64_t stride) {
  using A = Accumulator<T>;
  constexpr int L = Vec<A>::lanes;
  const int64_t full = t.gated ? 2 * t.width : t.width;
  for (int half = 0; half < 2; ++half) {
    const int64_t column = first_column + half * L;
    const int count = int(std::min<int64_t>(L, t.width - column));
    if (count <= 0) return;
    for (int r = 0; r < rows; ++r) {
      const Vec<A> w(t.weight[r]), da = load(sums + r * stride + half * L), z = load_count(t.z + r * full + column, count);
      Vec<A> a = activate<F, A>(z), dz = w * da;
      if (t.gated) {
        const Vec<A> up = load_count(t.z + r * full + t.width + column, count);
        store_count(t.dz + r * full + t.width + column, up_slope<F, A>(up, dz * a), count);
        const Vec<A> factor = up_factor<F, A>(up);
        dz = dz * factor;
        a = a * factor;
      }
      store_count(t.dz + r * full + column, dz * slope<F, A>(z), count);
      store_count(t.weighted + r * t.width + column, w * a, count);
      store(t.products + r * L, fma(da, a, load(t.products + r * L)));
    }
  }
}

template <class T> using UpTileFunction = void (*)(const UpTile<T>&, int rows, int64_t column, const Accumulator<T>* sums, int64_t stride);
template <class T> using SlopeTileFunction = void (*)(const SlopeTile<T>&, int rows, int64_t column, const Accumulator<T>* sums, int64_t stride);

template <class F> inline auto with_activation(Activation a, F&& body) {
  switch (a) {
    case Activation::relu: return body.template operator()<Activation::relu>();
    case Activation::silu: return body.template operator()<Activation::silu>();
    case Activation::gelu_erf: return body.template operator()<Activation::gelu_erf>();
    case Activation::gelu_tanh: return body.template operator()<Activation::gelu_tanh>();
    case Activation::quick_gelu: return body.template operator()<Activation::quick_gelu>();
    case Activation::clamped_swiglu: return body.template operator()<Activation::clamped_swiglu>();
    default: return body.template operator()<Activation::identity>();
  }
}
template <class T> UpTileFunction<T> up_tile_of(Activation a) {
  return with_activation(a, []<Activation F>() -> UpTileFunction<T> { return up_tile<T, F>; });
}
template <class T> SlopeTileFunction<T> slope_tile_of(Activation a) {
  return with_activation(a, []<Activation F>() -> SlopeTileFunction<T> { return slope_tile<T, F>; });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

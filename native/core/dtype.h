#pragma once
// Element types. Storage-only types (f16, integers) convert; arithmetic runs in f32 (f32, bf16) or f64.
#include <bit>
#include <cstddef>
#include <cstdint>

namespace libmoe {

enum class Dtype : uint8_t { f32, bf16, f64, f16, i32, i64, u8, boolean };

constexpr size_t size_of(Dtype t) {
  switch (t) {
    case Dtype::f32: case Dtype::i32: return 4;
    case Dtype::f64: case Dtype::i64: return 8;
    case Dtype::bf16: case Dtype::f16: return 2;
    default: return 1;
  }
}
const char* name_of(Dtype t);

// bfloat16: the upper half of an f32, rounded to nearest even; NaN stays NaN.
struct bf16 {
  uint16_t bits;
  bf16() = default;
  explicit bf16(float x) {
    uint32_t u = std::bit_cast<uint32_t>(x);
    bits = (u & 0x7fffffffu) > 0x7f800000u ? uint16_t((u >> 16) | 0x40u) : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

// IEEE binary16, storage only: converted by software so that every instruction set agrees.
struct f16 {
  uint16_t bits;
  f16() = default;
  explicit f16(float x);
  explicit operator float() const;
};

template <class T> struct DtypeOf;
template <> struct DtypeOf<float> { static constexpr Dtype value = Dtype::f32; };
template <> struct DtypeOf<double> { static constexpr Dtype value = Dtype::f64; };
template <> struct DtypeOf<bf16> { static constexpr Dtype value = Dtype::bf16; };
template <> struct DtypeOf<f16> { static constexpr Dtype value = Dtype::f16; };
template <> struct DtypeOf<int32_t> { static constexpr Dtype value = Dtype::i32; };
template <> struct DtypeOf<int64_t> { static constexpr Dtype value = Dtype::i64; };
template <> struct DtypeOf<uint8_t> { static constexpr Dtype value = Dtype::u8; };

// The type that arithmetic on T runs and accumulates in.
template <class T> struct AccumulatorOf { using type = float; };
template <> struct AccumulatorOf<double> { using type = double; };
template <class T> using Accumulator = typename AccumulatorOf<T>::type;

}  // namespace libmoe

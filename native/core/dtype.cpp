#include "core/dtype.h"

namespace libmoe {

const char* name_of(Dtype t) {
  static constexpr const char* names[] = {"f32", "bf16", "f64", "f16", "i32", "i64", "u8", "bool"};
  return names[static_cast<int>(t)];
}

f16::f16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { bits = uint16_t(sign | 0x7e00u); return; }
  if (magnitude >= 0x477ff000u) { bits = uint16_t(sign | 0x7c00u); return; }  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 moves the rounding to the right bit
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
    return;
  }
  bits = uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

f16::operator float() const {
  const uint32_t sign = uint32_t(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, mantissa = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    const float value = float(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

}  // namespace libmoe

#pragma once
// The sequences of a call, checked.
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/simd/attention_block.h"

namespace libmoe::cpu::LIBMOE_ISA {

// Sequences that have tokens, from offsets i32 [sequences + 1].
inline std::vector<Sequence> sequences_of(const TensorView& offsets, int64_t tokens) {
  const int32_t* at = offsets.as<int32_t>();
  const int64_t count = offsets.elements() - 1;
  std::vector<Sequence> out;
  bool valid = count >= 0 && at[0] == 0 && at[count] == tokens;
  for (int64_t s = 0; valid && s < count; ++s) {
    const int64_t length = int64_t(at[s + 1]) - at[s];
    valid = length >= 0;
    if (length > 0) out.push_back({s, at[s], length, length});
  }
  if (!valid)
    fail("ERR_LIBMOE_ARGUMENT",
         "attention: the sequence offsets must begin with 0, never fall and end with the number of tokens, " + std::to_string(tokens));
  return out;
}

}  // namespace libmoe::cpu::LIBMOE_ISA

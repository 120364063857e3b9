#pragma once
// What each instruction set's copy of cpu/ gives to backend.cpp.
#include "core/backend.h"

namespace libmoe::cpu {
namespace portable { void fill(Backend&); }
namespace avx2 { void fill(Backend&); }
namespace avx512 { void fill(Backend&); }
}  // namespace libmoe::cpu

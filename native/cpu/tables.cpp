#include "cpu/tables.h"

namespace libmoe::cpu::LIBMOE_ISA {
#include "ops/fill.inc"
}  // namespace libmoe::cpu::LIBMOE_ISA

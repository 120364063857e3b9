#include "cpu/tables.h"

namespace libmoe::cpu::LIBMOE_ISA {

// One line per op family; each is defined in the file of its name.
extern const ElementwiseOps elementwise_ops;

void fill(Backend& b) {
  b.elementwise = &elementwise_ops;
}

}  // namespace libmoe::cpu::LIBMOE_ISA

#include "cuda/core/tables.h"

namespace libmoe::cuda {
#include "ops/fill.inc"
}  // namespace libmoe::cuda

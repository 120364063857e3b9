#pragma once
#include "core/backend.h"

namespace libmoe::cuda {

// Enters the op families of this backend into the table; each is defined in the file of its name.
void fill(Backend& backend);

}  // namespace libmoe::cuda

#pragma once
#include "comm/mpi_shim.h"

namespace libmoe::comm {

// That of the shim which open_mpi() found. Throws ERR_LIBMOE_COLLECTIVE when it found none.
const MpiShim& mpi();

}  // namespace libmoe::comm

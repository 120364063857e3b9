#pragma once
// Descriptions of bf16 tensors for Hopper's copy engine, made on the host by the driver and given to kernels by value.
#include <cuda.h>

#include <cstdint>

namespace libmoe::cuda {

// Boxes of 64 columns and `box_rows` rows of [groups][rows][columns] at `data`; `ld` elements from row to row and `stride` from group to group. Rows of a box
// land 128 bytes apart in shared memory, swizzled. data must be a multiple of 16 bytes, ld and stride of 8 elements; box_rows 256 at most. Packs bits on the
// host and calls no device.
CUtensorMap tensor_map(const void* data, int64_t columns, int64_t rows, int64_t groups, int64_t ld, int64_t stride, int box_rows);

}  // namespace libmoe::cuda

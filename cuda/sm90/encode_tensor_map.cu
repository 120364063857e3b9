#include "cuda/core/tensor_map.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <string>

#include "cuda/core/runtime.h"

namespace libmoe::cuda {
namespace {

// From the driver that is loaded, so that the library needs no libcuda to load.
using Encode = decltype(&cuTensorMapEncodeTiled);
Encode encode() {
  static const Encode found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result), "looking for cuTensorMapEncodeTiled");
    if (!function) fail("ERR_LIBMOE_CUDA", "the NVIDIA driver has no cuTensorMapEncodeTiled; install driver 580 or newer, or set LIBMOE_GPU_ARCH=80");
    return reinterpret_cast<Encode>(function);
  }();
  return found;
}

}  // namespace

CUtensorMap tensor_map(const void* data, int64_t columns, int64_t rows, int64_t groups, int64_t ld, int64_t stride, int box_rows) {
  CUtensorMap map;
  const cuuint64_t sizes[3] = {cuuint64_t(columns), cuuint64_t(rows), cuuint64_t(groups)};
  const cuuint64_t pitches[2] = {cuuint64_t(ld) * 2, cuuint64_t(stride > 0 ? stride : ld) * 2};
  const cuuint32_t box[3] = {64, cuuint32_t(box_rows), 1}, steps[3] = {1, 1, 1};
  const CUresult result = encode()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), sizes, pitches, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                   CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    fail("ERR_LIBMOE_CUDA", "the driver refused to describe a tensor of " + std::to_string(groups) + " x " + std::to_string(rows) + " x " + std::to_string(columns) +
                                " elements to the copy engine (error " + std::to_string(int(result)) + "); LIBMOE_GPU_ARCH=80 goes without it");
  }
  return map;
}

}  // namespace libmoe::cuda

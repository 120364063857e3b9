#pragma once
// Products with few rows: weights that are used once or a dozen times are not packed but transposed in registers and multiplied at once, while the
// next ones are on their way from memory. Same chains of multiply-adds as the tile kernels, so the same bits.
#include "cpu/simd/gemm_kernel.h"

namespace libmoe::cpu::LIBMOE_ISA {

// c[R][kTileColumns] (row stride ldc) = or += panel * b^T over k elements. `b`: the rows of kTileColumns columns, null for a row of zeros, and after
// them those that will be asked for next (kTileColumns / 2, or null), to fetch their beginnings. `panel` row by row. Indexed by R - 1.
template <class In, class Acc> using StreamKernel = void (*)(int64_t k, const Acc* panel, const In* const* b, Acc* c, int64_t ldc, bool accumulate);
template <class In, class Acc> struct StreamKernels { StreamKernel<In, Acc> rows[kTileRows]; };

template <class P> const StreamKernels<typename P::In, typename P::Acc>& stream_kernels();  // gemm_stream.cpp; not for pairs

}  // namespace libmoe::cpu::LIBMOE_ISA

#pragma once
// The innermost loop of every matrix product: a tile of R rows by kTileColumns columns held in registers while k runs.
//
// Bits: each element of a tile is one chain c = fma(a[k], b[k], c) over ascending k, started from zero or from the value already in c.
// Nothing else about a tile enters its elements, so a row has the same bits in a tile of one row and of fourteen, alone and in a batch,
// with K in one piece or in several (the partial sum is stored and reloaded without rounding).
//
// Registers: 14 x 2 accumulators, 2 vectors of b and 2 broadcasts fill the 32 of AVX-512; 6 x 2 fit the 16 of AVX2 and SSE. Per k step
// 28 FMAs against 16 loads: bound by the two FMA ports.
#include <type_traits>

#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {

inline constexpr int kTileRows = kVectorBytes == 64 ? 14 : 6;
template <class Acc> inline constexpr int kTileColumns = 2 * Vec<Acc>::lanes;

// A panel of `a` is stored in blocks of kPanelWords k-words. Within a block either row by row ([kPanelRows][kPanelWords]: filled by copying
// rows) or word by word ([kPanelWords][kPanelRows]: filled by copying pieces of k-rows of a transposed operand). Either way all offsets in the
// loop are constants and one register addresses the panel. kPanelRows is kTileRows in whole vectors.
inline constexpr int kPanelWords = 64;
inline constexpr int kPanelRows = kVectorBytes == 64 ? 16 : 8;

// How the elements of an operand enter the product. A word is what one k step consumes per row and column.
struct F32 { using In = float; using Acc = float; static constexpr int per_word = 1; };
struct F64 { using In = double; using Acc = double; static constexpr int per_word = 1; };
// bf16 widened to f32 while packing: k even, k odd in one chain, as f32.
struct Bf16Widened { using In = bf16; using Acc = float; static constexpr int per_word = 1; };
// bf16 in pairs along k, for vdpbf16ps (AVX512-BF16). A pair travels as the bits of a float.
struct Bf16Pairs { using In = bf16; using Acc = float; static constexpr int per_word = 2; };

// c[rows][kTileColumns] (row stride ldc) = or += panel * sliver, `words` k-words. Indexed by rows - 1.
template <class Acc> using TileKernel = void (*)(int64_t words, const Acc* panel, const Acc* sliver, Acc* c, int64_t ldc, bool accumulate);
template <class Acc> struct TileKernels { TileKernel<Acc> rows[kTileRows]; };

template <class Acc> const TileKernels<Acc>& fma_kernels(bool panel_by_k);  // gemm_kernel.cpp
#if LIBMOE_ISA_avx512
const TileKernels<float>& bf16_pair_kernels(bool panel_by_k);               // avx512bf16/gemm_kernel_bf16.cpp
#endif
// Whether this process multiplies bf16 in pairs: a property of the machine, the same for every product.
bool has_bf16_pairs();

template <class P> inline const TileKernels<typename P::Acc>& kernels_of(bool panel_by_k) {
#if LIBMOE_ISA_avx512
  if constexpr (P::per_word == 2) return bf16_pair_kernels(panel_by_k);
#endif
  return fma_kernels<typename P::Acc>(panel_by_k);
}

// body.template operator()<P>() with the way in which operands of this type are multiplied here.
template <class T, class F> inline void with_operand(F&& body) {
  if constexpr (std::is_same_v<T, float>) return body.template operator()<F32>();
  else if constexpr (std::is_same_v<T, double>) return body.template operator()<F64>();
  else {
#if LIBMOE_ISA_avx512
    if (has_bf16_pairs()) return body.template operator()<Bf16Pairs>();
#endif
    return body.template operator()<Bf16Widened>();
  }
}

}  // namespace libmoe::cpu::LIBMOE_ISA

// The tile kernels of gemm_kernel.cpp for pairs of bf16, compiled with -mavx512bf16 and called only where cpuid reports it. Self-contained
// intrinsics: nothing here may share an inline function with files built without that flag.
//
// vdpbf16ps adds the two products of a pair to the accumulator in its own fixed order and flushes denormals, so bits differ from plain FMA
// (LIBMOE_BF16=widened) but not between tiles, rows or pieces of K.
#include "cpu/simd/gemm_kernel.h"

#if LIBMOE_ISA_avx512
#include <immintrin.h>

#include <utility>

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

#if LIBMOE_EMULATE_BF16
// The instruction as the manual's pseudocode has it: one f32 FMA for the odd elements of the pairs, then one for the even, each rounded to nearest
// even, denormals zero on the way in and out. Its priorities among several NaNs are not repeated. Volatile, so that nothing leaves DenormalsOff's span.
inline __m512 dot_pairs(__m512 c, __m512 a, __m512 b) {
  const __m512i odd = _mm512_set1_epi32(int(0xffff0000u)), x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
  const __m512 x1 = _mm512_castsi512_ps(_mm512_and_si512(x, odd)), y1 = _mm512_castsi512_ps(_mm512_and_si512(y, odd));
  const __m512 x0 = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), y0 = _mm512_castsi512_ps(_mm512_slli_epi32(y, 16));
  asm volatile("vfmadd231ps %2, %1, %0" : "+v"(c) : "v"(x1), "v"(y1));
  asm volatile("vfmadd231ps %2, %1, %0" : "+v"(c) : "v"(x0), "v"(y0));
  return c;
}
struct DenormalsOff {
  const unsigned before = _mm_getcsr();
  DenormalsOff() { _mm_setcsr(0x9fc0); }  // FTZ, DAZ, round to nearest, no exceptions
  ~DenormalsOff() { _mm_setcsr(before); }
};
#else
inline __m512 dot_pairs(__m512 c, __m512 a, __m512 b) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
struct DenormalsOff {};  // the instruction itself does so
#endif

template <int R, bool ByK> void pair_tile(int64_t words, const float* panel, const float* b, float* out, int64_t ldc, bool accumulate) {
  constexpr int row_step = ByK ? 1 : kPanelWords, word_step = ByK ? kPanelRows : 1;
  [[maybe_unused]] const DenormalsOff denormals_off;
  __m512 c[R][2];
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
    c[r][0] = accumulate ? _mm512_loadu_ps(out + r * ldc) : _mm512_setzero_ps();
    c[r][1] = accumulate ? _mm512_loadu_ps(out + r * ldc + 16) : _mm512_setzero_ps();
  }
  for (; words > 0; words -= kPanelWords, panel += kPanelRows * kPanelWords) {
    const int n = words < kPanelWords ? int(words) : kPanelWords;
    const float* a = panel;
#pragma GCC unroll 1
    for (int k = 0; k < n; ++k, a += word_step, b += 32) {
      const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);
#pragma GCC unroll 14
      for (int r = 0; r < R; ++r) {
        const __m512 x = _mm512_set1_ps(a[r * row_step]);
        c[r][0] = dot_pairs(c[r][0], x, b0);
        c[r][1] = dot_pairs(c[r][1], x, b1);
      }
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
    _mm512_storeu_ps(out + r * ldc, c[r][0]);
    _mm512_storeu_ps(out + r * ldc + 16, c[r][1]);
  }
}

template <bool ByK, int... R> constexpr TileKernels<float> table(std::integer_sequence<int, R...>) { return {{pair_tile<R + 1, ByK>...}}; }

}  // namespace

const TileKernels<float>& bf16_pair_kernels(bool panel_by_k) {
  static constexpr TileKernels<float> by_row = table<false>(std::make_integer_sequence<int, kTileRows>());
  static constexpr TileKernels<float> by_k = table<true>(std::make_integer_sequence<int, kTileRows>());
  return panel_by_k ? by_k : by_row;
}

}  // namespace libmoe::cpu::LIBMOE_ISA
#endif

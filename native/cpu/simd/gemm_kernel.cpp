#include "cpu/simd/gemm_kernel.h"

#include <cstdlib>
#include <utility>

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int kAhead = 16;  // k steps

template <class Acc, int R, bool ByK> void tile(int64_t words, const Acc* panel, const Acc* b, Acc* out, int64_t ldc, bool accumulate) {
  using V = Vec<Acc>;
  constexpr int L = V::lanes, row_step = ByK ? 1 : kPanelWords, word_step = ByK ? kPanelRows : 1;
  V c[R][2];
  if (accumulate) {
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
      c[r][0] = load(out + r * ldc);
      c[r][1] = load(out + r * ldc + L);
    }
  } else {
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) c[r][0] = c[r][1] = V::zero();
  }
  for (; words > 0; words -= kPanelWords, panel += kPanelRows * kPanelWords) {
    const int n = words < kPanelWords ? int(words) : kPanelWords;
    const Acc* a = panel;
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k, a += word_step, b += 2 * L) {
      const V b0 = load(b), b1 = load(b + L);
      // b streams from L2; the panel is what L1 is for. With AVX-512 this is two lines: the processor fetches the second by itself.
      __builtin_prefetch(b + kAhead * 2 * L);
#pragma GCC unroll 14
      for (int r = 0; r < R; ++r) {
        const V x(a[r * row_step]);
        c[r][0] = fma(x, b0, c[r][0]);
        c[r][1] = fma(x, b1, c[r][1]);
      }
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
    store(out + r * ldc, c[r][0]);
    store(out + r * ldc + L, c[r][1]);
  }
}

template <class Acc, bool ByK, int... R> constexpr TileKernels<Acc> table(std::integer_sequence<int, R...>) {
  return {{tile<Acc, R + 1, ByK>...}};
}

}  // namespace

template <class Acc> const TileKernels<Acc>& fma_kernels(bool panel_by_k) {
  static constexpr TileKernels<Acc> by_row = table<Acc, false>(std::make_integer_sequence<int, kTileRows>());
  static constexpr TileKernels<Acc> by_k = table<Acc, true>(std::make_integer_sequence<int, kTileRows>());
  return panel_by_k ? by_k : by_row;
}
template const TileKernels<float>& fma_kernels<float>(bool);
template const TileKernels<double>& fma_kernels<double>(bool);

bool has_bf16_pairs() {
#if LIBMOE_ISA_avx512
  // LIBMOE_BF16=widened keeps to plain FMA, to compare the two.
  static const bool pairs = [] {
    const char* forced = std::getenv("LIBMOE_BF16");
#if LIBMOE_EMULATE_BF16
    const bool capable = true;
#else
    const bool capable = __builtin_cpu_supports("avx512bf16");
#endif
    return capable && !(forced && forced[0] == 'w');
  }();
  return pairs;
#else
  return false;
#endif
}

}  // namespace libmoe::cpu::LIBMOE_ISA

#include "cpu/simd/gemm_stream.h"

#include <utility>

#include "cpu/simd/gemm_pack.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

template <class P, int R> void stream(int64_t k, const typename P::Acc* panel, const typename P::In* const* b, typename P::Acc* c, int64_t ldc, bool accumulate) {
  using In = typename P::In;
  using Acc = typename P::Acc;
  using V = Vec<Acc>;
  constexpr int L = V::lanes;
  for (int half = 0; half < 2; ++half, b += L, c += L) {
    bool all = true;
    for (int i = 0; i < L; ++i) all &= b[i] != nullptr;
    V sum[R];
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) sum[r] = accumulate ? load(c + r * ldc) : V::zero();
    for (int64_t w = 0; w < k; w += L) {
      V column[L];
      const Acc* a = panel + w / kPanelWords * kPanelWords * kPanelRows + w % kPanelWords;
      if (all && w + L <= k) {
        const int64_t ahead = w + kAheadElements<In>;
        const In* const* from = ahead < k ? b : b + L;
        const int64_t at = ahead < k ? ahead : ahead - k;
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) {
          __builtin_prefetch(from[i] + at, 0, 2);
          column[i] = pack_detail::words_along<P, true>(b[i] + w);
        }
        pack_detail::transpose<Acc>(column);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i)
#pragma GCC unroll 14
          for (int r = 0; r < R; ++r) sum[r] = fma(V(a[r * kPanelWords + i]), column[i], sum[r]);
      } else {
        for (int i = 0; i < L; ++i) column[i] = pack_detail::words_along<P>(b[i] ? b[i] + w : nullptr, k - w);
        pack_detail::transpose<Acc>(column);
        for (int i = 0; i < L && w + i < k; ++i)
#pragma GCC unroll 14
          for (int r = 0; r < R; ++r) sum[r] = fma(V(a[r * kPanelWords + i]), column[i], sum[r]);
      }
    }
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) store(c + r * ldc, sum[r]);
  }
}

template <class P, int... R> constexpr StreamKernels<typename P::In, typename P::Acc> table(std::integer_sequence<int, R...>) {
  return {{stream<P, R + 1>...}};
}

}  // namespace

template <class P> const StreamKernels<typename P::In, typename P::Acc>& stream_kernels() {
  static constexpr auto kernels = table<P>(std::make_integer_sequence<int, kTileRows>());
  return kernels;
}
template const StreamKernels<float, float>& stream_kernels<F32>();
template const StreamKernels<double, double>& stream_kernels<F64>();
template const StreamKernels<bf16, float>& stream_kernels<Bf16Widened>();

}  // namespace libmoe::cpu::LIBMOE_ISA

#include "cpu/simd/gemm_engine.h"

#include <unistd.h>

#include "core/dispatch.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

template <class P, class Out> void product(const Gemm& g) {
  using In = typename P::In;
  using Acc = typename P::Acc;
  constexpr bool direct = std::is_same_v<Out, Acc>;
  constexpr int64_t tile = kTileColumns<Acc>;
  // Items: columns by pieces of rows. More rows per item mean that a packed block of b is used more often; fewer, that all
  // threads have work. The partition does not touch the bits.
  const int64_t threads = thread_count();
  int64_t width = (g.n + tile - 1) / tile * tile;
  const int64_t pieces = (g.m + 575) / 576;
  int64_t row_piece = ((g.m + pieces - 1) / pieces + kTileRows - 1) / kTileRows * kTileRows;
  const auto items_of = [&] { return g.batch * ((g.n + width - 1) / width) * ((g.m + row_piece - 1) / row_piece); };
  while (items_of() < 4 * threads && (width > tile || row_piece > kTileRows)) {
    // Halve the longer side: packing costs in proportion to the sum of both.
    if (width > tile && (width >= row_piece || row_piece <= 4 * kTileRows)) width = (width / tile + 1) / 2 * tile;
    else if (row_piece > 4 * kTileRows) row_piece = (row_piece / kTileRows + 1) / 2 * kTileRows;
    else break;
  }
  const int64_t columns = (g.n + width - 1) / width, rows = (g.m + row_piece - 1) / row_piece;
  const In* bias = static_cast<const In*>(g.bias);
  parallel_for(g.batch * columns * rows, [&](int64_t item) {
    const int64_t batch = item / (columns * rows), n0 = item / rows % columns * width, m0 = item % rows * row_piece;
    Product<P> p;
    p.a = {static_cast<const In*>(g.a) + batch * g.stride_a, g.lda, nullptr};
    p.b = {static_cast<const In*>(g.b) + batch * g.stride_b, g.ldb, nullptr};
    p.a_by_k = g.transpose_a;
    p.b_by_k = !g.transpose_b;
    p.m = g.m;
    p.n = g.n;
    p.k = g.k;
    Out* c = static_cast<Out*>(g.c) + batch * g.stride_c;
    Acc* sums_in_c = nullptr;
    if constexpr (direct) sums_in_c = c;
    multiply<P>(p, m0, std::min(g.m, m0 + row_piece), n0, std::min(g.n, n0 + width), sums_in_c, g.ldc, direct && g.accumulate,
                [&](int64_t m, int r, int64_t n, int64_t count, const Acc* sums, int64_t stride) {
                  if (direct && count == tile && !bias) return;
                  for (int i = 0; i < r; ++i) {
                    Out* out = c + (m + i) * g.ldc + n;
                    for_vectors<Acc>(count, [&](int64_t j, int lanes) {
                      Vec<Acc> x = load(sums + i * stride + j);
                      if (bias) x = x + load_count(bias + n + j, lanes);
                      if (!direct && g.accumulate) x = x + load_count(out + j, lanes);
                      store_count(out + j, x, lanes);
                    });
                  }
                });
  });
}

}  // namespace

int64_t block_bytes() {
  static const int64_t bytes = [] {
    int64_t l2 = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return std::clamp<int64_t>(l2 > 0 ? l2 : int64_t(1) << 20, int64_t(256) << 10, int64_t(2) << 20) / 8 * 5;
  }();
  return bytes;
}

void gemm(const Gemm& g) {
  if (g.m <= 0 || g.n <= 0 || g.batch <= 0) return;
  with_float(g.in, [&]<class T>() {
    with_operand<T>([&]<class P>() {
      if (g.out == g.in) return product<P, T>(g);
      if constexpr (std::is_same_v<T, bf16>)
        if (g.out == Dtype::f32) return product<P, float>(g);
      fail("ERR_LIBMOE_DTYPE", std::string("a product of ") + name_of(g.in) + " cannot be written as " + name_of(g.out));
    });
  });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

// 2 m n k FLOPs; see simd/gemm_engine.h for the blocking. Column sums read x once, bound by memory.
#include "ops/gemm.h"

#include "core/dispatch.h"
#include "core/memory_pool.h"
#include "cpu/simd/gemm_engine.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

void gemm_op(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c, const GemmOptions& o) {
  Gemm g;
  g.batch = o.batched ? c.shape[0] : 1;
  g.n = c.shape[-1];
  g.m = g.n == 0 || g.batch == 0 ? 0 : c.elements() / g.batch / g.n;
  if (g.m == 0) return;
  g.k = a.elements() / g.batch / g.m;
  g.a = a.data;
  g.b = b.data;
  g.c = c.data;
  g.bias = bias.data;
  g.lda = o.transpose_a ? g.m : g.k;
  g.ldb = o.transpose_b ? g.k : g.n;
  g.ldc = g.n;
  g.stride_a = g.m * g.k;
  g.stride_b = g.n * g.k;
  g.stride_c = g.m * g.n;
  g.transpose_a = o.transpose_a;
  g.transpose_b = o.transpose_b;
  g.accumulate = o.accumulate;
  g.in = a.dtype;
  g.out = c.dtype;
  gemm(g);
}

void column_sums(const TensorView& x, const TensorView& y, bool accumulate) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    constexpr int64_t kChunk = 512;
    const int64_t n = y.elements(), rows = n == 0 ? 0 : x.elements() / n, chunks = (rows + kChunk - 1) / kChunk;
    const size_t bytes = size_t(std::max<int64_t>(1, chunks * n)) * sizeof(A);
    A* partial = static_cast<A*>(pool_allocate(bytes));
    const T* in = x.as<T>();
    parallel_for(chunks, [&](int64_t chunk) {
      A* sums = partial + chunk * n;
      std::fill_n(sums, n, A(0));
      for (int64_t row = chunk * kChunk; row < std::min(rows, (chunk + 1) * kChunk); ++row)
        for_vectors<A>(n, [&](int64_t j, int count) { store_count(sums + j, load_count(sums + j, count) + load_count(in + row * n + j, count), count); });
    });
    A* out = y.as<A>();
    parallel_ranges(n, 4096, [&](int64_t begin, int64_t end) {
      for_vectors<A>(end - begin, [&](int64_t j, int count) {
        Vec<A> sum = accumulate ? load_count(out + begin + j, count) : Vec<A>::zero();
        for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += load_count(partial + chunk * n + begin + j, count);
        store_count(out + begin + j, sum, count);
      });
    });
    pool_release(partial, bytes);
  });
}

}  // namespace

extern const GemmOps gemm_ops;
const GemmOps gemm_ops = {gemm_op, column_sums};

}  // namespace libmoe::cpu::LIBMOE_ISA

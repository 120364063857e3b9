// 2 m n k FLOPs: bf16 on the tensor cores of the device's generation, f32 and f64 by fused multiply-adds (core/simt_product.h). Column sums read x once, bound by
// memory (core/row_sums.h).
#include "ops/gemm.h"

#include "core/dispatch.h"
#include "cuda/core/row_sums.h"
#include "cuda/core/simt_product.h"

namespace libmoe::cuda {
namespace {

void gemm(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c, const GemmOptions& o) {
  const int64_t batch = o.batched ? c.shape[0] : 1, n = c.shape[-1], m = n == 0 || batch == 0 ? 0 : c.elements() / batch / n;
  if (m == 0) return;
  const int64_t k = a.elements() / batch / m;
  const DeviceState& state = state_of(c.device);
  with_float(a.dtype, [&]<class T>() {
    const DenseProduct<T> p = {a.as<const T>(), b.as<const T>(), bias.as<const T>(), c.data, c.dtype != a.dtype, o.transpose_a, o.transpose_b, o.accumulate, m, n, k, batch};
    if constexpr (std::is_same_v<T, bf16>) tensor_core_ops(state).dense(state, p);
    else multiply_simt(state, shaped(p));
  });
}

void column_sums(const TensorView& x, const TensorView& y, bool accumulate) {
  const int64_t n = y.elements();
  if (n == 0) return;
  with_float(x.dtype, [&]<class T>() { sum_columns<T>(state_of(y.device), x.as<const T>(), x.elements() / n, n, y.as<Accumulator<T>>(), accumulate); });
}

}  // namespace

const TensorCoreOps& tensor_core_ops([[maybe_unused]] const DeviceState& state) {
#ifdef LIBMOE_HAS_SM90
  if (state.architecture == 90) {
    static const TensorCoreOps merged = [] {
      TensorCoreOps ops = sm90_ops;
      if (!ops.dense) ops.dense = sm80_ops.dense;
      if (!ops.up) ops.up = sm80_ops.up;
      if (!ops.down) ops.down = sm80_ops.down;
      if (!ops.slope) ops.slope = sm80_ops.slope;
      if (!ops.input) ops.input = sm80_ops.input;
      if (!ops.weight) ops.weight = sm80_ops.weight;
      return ops;
    }();
    return merged;
  }
#endif
  return sm80_ops;
}

extern const GemmOps gemm_ops;
const GemmOps gemm_ops = {gemm, column_sums};

}  // namespace libmoe::cuda

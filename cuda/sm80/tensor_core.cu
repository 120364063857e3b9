// Ampere's table of tensor-core products; also what newer cards run under LIBMOE_GPU_ARCH=80.
#include "cuda/core/tensor_core.h"

#include "cuda/sm80/multiply.h"

namespace libmoe::cuda {
namespace {

void dense(const DeviceState& state, const DenseProduct<bf16>& p) {
  const auto shape = shaped(p);
  const auto run = p.transpose_a ? (p.transpose_b ? sm80::multiply_tn : sm80::multiply_tt) : p.transpose_b ? sm80::multiply_nn : sm80::multiply_nt;
  run(state, shape);
}

}  // namespace

extern const TensorCoreOps sm80_ops;
const TensorCoreOps sm80_ops = {
    dense,
    [](const DeviceState& state, const ExpertRows<float>& rows, const UpProduct<bf16>& p) { sm80::multiply_up(state, shaped(rows, p)); },
    [](const DeviceState& state, const ExpertRows<float>& rows, const DownProduct<bf16>& p) { sm80::multiply_nn(state, shaped(rows, p)); },
    [](const DeviceState& state, const ExpertRows<float>& rows, const SlopeProduct<bf16>& p) { sm80::multiply_slope(state, shaped(rows, p)); },
    [](const DeviceState& state, const ExpertRows<float>& rows, const InputProduct<bf16>& p) { sm80::multiply_nt(state, shaped(rows, p)); },
    [](const DeviceState& state, const ExpertRows<float>& rows, const WeightProduct<bf16>& p) { sm80::multiply_tt(state, shaped(rows, p)); },
};

}  // namespace libmoe::cuda

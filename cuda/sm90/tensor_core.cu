// The table of Hopper's products. Whether a shape is taken is decided by its row lengths and addresses alone; sm_80's kernels take the others.
#include "cuda/core/tensor_core.h"

#include "cuda/sm90/operations.h"

namespace libmoe::cuda {
namespace sm90 {
namespace {

// Rows of 16-byte multiples at 16-byte addresses, and nothing empty: what the copy engine can describe.
template <class E> bool fits(const Product<bf16, E>& p) {
  const Schedule& s = p.schedule;
  return pieces_of_sixteen(p.a) && pieces_of_sixteen(p.b) && s.n > 0 && (s.ragged == Ragged::rows || s.m > 0) && (s.ragged == Ragged::inner || s.k > 0);
}

void dense(const DeviceState& state, const DenseProduct<bf16>& d) {
  const auto p = shaped(d);
  if (!fits(p) || (p.a_by_k && !p.b_by_k)) return sm80_ops.dense(state, d);
  (p.a_by_k ? product_tn : p.b_by_k ? product_nn : product_nt)(state, p, 0);
}

template <class D, class E>
void of_rows(const DeviceState& state, const ExpertRows<float>& rows, const D& d, void (*product)(const DeviceState&, const Product<bf16, E>&, int64_t),
             void (*older)(const DeviceState&, const ExpertRows<float>&, const D&)) {
  const auto p = shaped(rows, d);
  if (rows.slots > 0 && fits(p)) product(state, p, rows.slots);
  else older(state, rows, d);
}

void up(const DeviceState& state, const ExpertRows<float>& rows, const UpProduct<bf16>& d) { of_rows(state, rows, d, product_up, sm80_ops.up); }
void down(const DeviceState& state, const ExpertRows<float>& rows, const DownProduct<bf16>& d) { of_rows(state, rows, d, product_nt, sm80_ops.down); }
void slope(const DeviceState& state, const ExpertRows<float>& rows, const SlopeProduct<bf16>& d) { of_rows(state, rows, d, product_slope, sm80_ops.slope); }
void input(const DeviceState& state, const ExpertRows<float>& rows, const InputProduct<bf16>& d) { of_rows(state, rows, d, product_nn, sm80_ops.input); }
void weight(const DeviceState& state, const ExpertRows<float>& rows, const WeightProduct<bf16>& d) { of_rows(state, rows, d, product_tn, sm80_ops.weight); }

}  // namespace
}  // namespace sm90

extern const TensorCoreOps sm90_ops;
const TensorCoreOps sm90_ops = {sm90::dense, sm90::up, sm90::down, sm90::slope, sm90::input, sm90::weight};

}  // namespace libmoe::cuda

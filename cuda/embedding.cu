// Bound by memory. Forward: every row that is asked for is read and written once. Backward: the positions are sorted by id (cuda/row_index.cu), then each named row of
// the gradient has one owner, which adds the rows of dy in ascending position; rows that nothing names cost one store. Floor in bf16: 2 bytes an element of dy read,
// 4 bytes an element of dweight written.
#include "ops/embedding.h"

#include "core/dispatch.h"
#include "cuda/core/keyed_sums.h"

namespace libmoe::cuda {
namespace {

void forward(const TensorView& weight, const TensorView& ids, const TensorView& y) {
  gather_row_bytes(state_of(y.device), weight.data, ids.as<const int32_t>(), ids.elements(), weight.shape[0], weight.shape[1] * int64_t(size_of(weight.dtype)),
                   y.data, "token id");
}

void backward(const TensorView& dy, const TensorView& ids, const TensorView& dweight, bool accumulate) {
  DeviceState& state = state_of(dweight.device);
  if (!accumulate && dweight.bytes() > 0) check(cudaMemsetAsync(dweight.data, 0, dweight.bytes(), state.compute), "clearing a gradient");
  with_float(dy.dtype, [&]<class T>() {
    sum_rows(state, ids.as<const int32_t>(), ids.elements(), dweight.shape[0], dweight.shape[1], dy.as<const T>(), dweight.as<Accumulator<T>>(),
             accumulate ? RowSum::add : RowSum::overwrite, "token id");
  });
}

}  // namespace

extern const EmbeddingOps embedding_ops;
const EmbeddingOps embedding_ops = {forward, backward};

}  // namespace libmoe::cuda

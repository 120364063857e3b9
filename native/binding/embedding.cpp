#include "ops/embedding.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const EmbeddingOps& ops(const Call& call) { return call.family(&Backend::embedding); }

// embedding(weight, ids, y)
void forward(Call& call) {
  Dim vocabulary("vocabulary"), d("d"), n("n");
  const TensorView weight = call.tensor("weight", kFloats, {&vocabulary, &d}), ids = call.tensor("ids", kI32, {&n}), y = call.tensor("y", kFloats, {&n, &d});
  call.same_dtype("weight", weight, "y", y);
  ops(call).forward(weight, ids, y);
}

// embeddingBackward(dy, ids, dweight, accumulate)
void backward(Call& call) {
  Dim vocabulary("vocabulary"), d("d"), n("n");
  const TensorView dy = call.tensor("dy", kFloats, {&n, &d}), ids = call.tensor("ids", kI32, {&n}), dweight = call.tensor("dweight", kWide, {&vocabulary, &d});
  call.require((dy.dtype == Dtype::f64) == (dweight.dtype == Dtype::f64), "ERR_LIBMOE_DTYPE", "dweight must be f32, or f64 where dy is f64");
  const bool accumulate = call.boolean("accumulate");
  ops(call).backward(dy, ids, dweight, accumulate);
}

}  // namespace

void bind_embedding(Napi::Object exports) {
  expose(exports, "embedding", forward);
  expose(exports, "embeddingBackward", backward);
}

}  // namespace libmoe::binding

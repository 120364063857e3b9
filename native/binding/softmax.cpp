#include "ops/softmax.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const SoftmaxOps& ops(const Call& call) { return call.family(&Backend::softmax); }

// softmax(x, y, logarithm)
void softmax(Call& call) {
  Dim rows("rows"), width("width");
  const TensorView x = call.matrix("x", kFloats, rows, width), y = call.matrix("y", kFloats, rows, width);
  call.same_dtype("x", x, "y", y);
  ops(call).softmax(x, y, call.boolean("logarithm"));
}

// softmaxBackward(y, dy, dx, logarithm)
void softmax_backward(Call& call) {
  Dim rows("rows"), width("width");
  const TensorView y = call.matrix("y", kFloats, rows, width), dy = call.matrix("dy", kFloats, rows, width), dx = call.matrix("dx", kFloats, rows, width);
  call.same_dtype("y", y, "dy", dy);
  call.same_dtype("y", y, "dx", dx);
  ops(call).softmax_backward(y, dy, dx, call.boolean("logarithm"));
}

}  // namespace

void bind_softmax(Napi::Object exports) {
  expose(exports, "softmax", softmax);
  expose(exports, "softmaxBackward", softmax_backward);
}

}  // namespace libmoe::binding

#include "ops/rotary.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

// rotary(x, cosine, sine, positions, y, interleaved, inverse)
void rotary(Call& call) {
  Dim tokens("tokens"), heads("heads"), width("width"), rows("positions"), pairs("pairs");
  const TensorView x = call.tensor("x", kFloats, {&tokens, &heads, &width});
  const Types table = x.dtype == Dtype::f64 ? kF64 : kF32;
  const TensorView cosine = call.tensor("cosine", table, {&rows, &pairs}), sine = call.tensor("sine", table, {&rows, &pairs}),
                   positions = call.tensor("positions", kI32, {&tokens}), y = call.tensor("y", kFloats, {&tokens, &heads, &width});
  call.same_dtype("x", x, "y", y);
  call.require(2 * pairs.value <= width.value, "ERR_LIBMOE_SHAPE",
               "the table turns " + std::to_string(2 * pairs.value) + " channels, the heads have " + std::to_string(width.value));
  const bool interleaved = call.boolean("interleaved"), inverse = call.boolean("inverse");
  call.family(&Backend::rotary).rotary(x, cosine, sine, positions, y, interleaved, inverse);
}

}  // namespace

void bind_rotary(Napi::Object exports) { expose(exports, "rotary", rotary); }

}  // namespace libmoe::binding

#include "ops/norm.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const NormOps& ops(const Call& call) { return call.family(&Backend::norm); }

Types statistics_of(const TensorView& x) { return x.dtype == Dtype::f64 ? kF64 : kF32; }

// norm(x, weight, bias, y, mean, inverse, epsilon)
void norm(Call& call) {
  Dim rows("rows"), width("width");
  const TensorView x = call.matrix("x", kFloats, rows, width), weight = call.tensor("weight", kFloats, {&width}), bias = call.optional("bias", kFloats, {&width}),
                   y = call.matrix("y", kFloats, rows, width), mean = call.optional("mean", statistics_of(x), {&rows}),
                   inverse = call.tensor("inverse", statistics_of(x), {&rows});
  call.same_dtype("x", x, "weight", weight);
  call.same_dtype("x", x, "bias", bias);
  call.same_dtype("x", x, "y", y);
  const double epsilon = call.number("epsilon");
  call.require(epsilon >= 0, "ERR_LIBMOE_ARGUMENT", "epsilon must be 0 or more");
  call.require(width > 0, "ERR_LIBMOE_SHAPE", "the last dimension is empty");
  ops(call).norm(x, weight, bias, y, mean, inverse, epsilon);
}

// normBackward(x, weight, dy, mean, inverse, dx, dweight, accumulateWeight, dbias, accumulateBias)
void norm_backward(Call& call) {
  Dim rows("rows"), width("width");
  const TensorView x = call.matrix("x", kFloats, rows, width), weight = call.tensor("weight", kFloats, {&width}), dy = call.matrix("dy", kFloats, rows, width),
                   mean = call.optional("mean", statistics_of(x), {&rows}), inverse = call.tensor("inverse", statistics_of(x), {&rows}),
                   dx = call.optional_matrix("dx", kFloats, rows, width), dweight = call.optional("dweight", statistics_of(x), {&width});
  const bool accumulate_weight = call.boolean("accumulateWeight");
  const TensorView dbias = call.optional("dbias", statistics_of(x), {&width});
  const bool accumulate_bias = call.boolean("accumulateBias");
  call.same_dtype("x", x, "weight", weight);
  call.same_dtype("x", x, "dy", dy);
  call.same_dtype("x", x, "dx", dx);
  call.require(width > 0, "ERR_LIBMOE_SHAPE", "the last dimension is empty");
  ops(call).norm_backward(x, weight, dy, mean, inverse, dx, dweight, accumulate_weight, dbias, accumulate_bias);
}

// inverseNorms(x, floor, plus, y)
void inverse_norms(Call& call) {
  Dim rows("rows"), width("width");
  const TensorView x = call.matrix("x", kFloats, rows, width);
  const double floor = call.number("floor"), plus = call.number("plus");
  const TensorView y = call.tensor("y", statistics_of(x), {&rows});
  call.require(floor > 0 && plus >= 0, "ERR_LIBMOE_ARGUMENT", "floor must be above 0, plus 0 or more");
  ops(call).inverse_norms(x, floor, plus, y);
}

// inverseNormsBackward(x, floor, y, dy, dx)
void inverse_norms_backward(Call& call) {
  Dim rows("rows"), width("width");
  const TensorView x = call.matrix("x", kFloats, rows, width);
  const double floor = call.number("floor");
  const TensorView y = call.tensor("y", statistics_of(x), {&rows}), dy = call.tensor("dy", statistics_of(x), {&rows}), dx = call.matrix("dx", kFloats, rows, width);
  call.same_dtype("x", x, "dx", dx);
  ops(call).inverse_norms_backward(x, floor, y, dy, dx);
}

}  // namespace

void bind_norm(Napi::Object exports) {
  expose(exports, "norm", norm);
  expose(exports, "normBackward", norm_backward);
  expose(exports, "inverseNorms", inverse_norms);
  expose(exports, "inverseNormsBackward", inverse_norms_backward);
}

}  // namespace libmoe::binding

#include "ops/reduction.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const ReductionOps& ops(const Call& call) { return call.family(&Backend::reduction); }

void same_or_accumulator(const Call& call, const TensorView& x, const TensorView& y) {
  call.require(y.dtype == x.dtype || (x.dtype == Dtype::bf16 && y.dtype == Dtype::f32), "ERR_LIBMOE_DTYPE",
               std::string("y must have the dtype of x (") + name_of(x.dtype) + "), or be f32 for bf16, got " + name_of(y.dtype));
}

void accumulator(const Call& call, const TensorView& x, const char* name, const TensorView& y) {
  const Dtype expected = x.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  call.require(y.dtype == expected, "ERR_LIBMOE_DTYPE", std::string(name) + " must be " + name_of(expected) + ", got " + name_of(y.dtype));
}

// reduce(f, x, axes as a bit mask, y)
void reduce(Call& call) {
  const auto f = static_cast<Reduction>(call.integer("f", 0, int(Reduction::max)));
  const TensorView x = call.tensor("x", kFloats);
  const auto axes = uint32_t(call.integer("axes", 0, (int64_t(1) << x.shape.rank) - 1));
  const TensorView y = call.tensor("y", kFloats);
  same_or_accumulator(call, x, y);
  int64_t kept = 1;
  for (int i = 0; i < x.shape.rank; ++i)
    if (!(axes >> i & 1u)) kept *= x.shape.dims[i];
  call.require(y.elements() == kept, "ERR_LIBMOE_SHAPE", "the result must have " + std::to_string(kept) + " elements, got " + y.shape.text());
  call.require(f == Reduction::sum || kept == 0 || x.elements() > 0, "ERR_LIBMOE_SHAPE", "mean and max need at least one element per result, got " + x.shape.text());
  ops(call).reduce(f, x, axes, y);
}

// argmax(x, y)
void argmax(Call& call) {
  Dim rows("rows"), n("n");
  const TensorView x = call.tensor("x", kFloats, {&rows, &n}), y = call.tensor("y", kI32, {&rows});
  call.require(rows == 0 || n > 0, "ERR_LIBMOE_SHAPE", "argmax needs at least one element per row, got " + x.shape.text());
  ops(call).argmax(x, y);
}

// logSumExp(x, y)
void log_sum_exp(Call& call) {
  Dim rows("rows"), n("n");
  const TensorView x = call.tensor("x", kFloats, {&rows, &n}), y = call.tensor("y", kWide, {&rows});
  accumulator(call, x, "y", y);
  ops(call).log_sum_exp(x, y);
}

// logSumExpBackward(x, y, dy, dx)
void log_sum_exp_backward(Call& call) {
  Dim rows("rows"), n("n");
  const TensorView x = call.tensor("x", kFloats, {&rows, &n}), y = call.tensor("y", kWide, {&rows}), dy = call.tensor("dy", kWide, {&rows}),
                   dx = call.tensor("dx", kFloats, {&rows, &n});
  accumulator(call, x, "y", y);
  accumulator(call, x, "dy", dy);
  call.same_dtype("x", x, "dx", dx);
  ops(call).log_sum_exp_backward(x, y, dy, dx);
}

}  // namespace

void bind_reduction(Napi::Object exports) {
  expose(exports, "reduce", reduce);
  expose(exports, "argmax", argmax);
  expose(exports, "logSumExp", log_sum_exp);
  expose(exports, "logSumExpBackward", log_sum_exp_backward);
}

}  // namespace libmoe::binding

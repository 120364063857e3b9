#include "ops/gemm.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const GemmOps& ops(const Call& call) { return call.family(&Backend::gemm); }

// A tensor as a matrix [rows, columns] (per batch element).
struct Sides {
  int64_t batch = 1, rows = 1, columns = 1;
};
Sides sides_of(const Call& call, const char* name, const TensorView& t, bool batched) {
  call.require(batched ? t.shape.rank == 3 : t.shape.rank >= 1, "ERR_LIBMOE_SHAPE",
               std::string(name) + (batched ? " must be [batch, rows, columns], got " : " must have at least one dimension, got ") + t.shape.text());
  Sides s;
  s.batch = batched ? t.shape[0] : 1;
  s.columns = t.shape[-1];
  for (int i = batched ? 1 : 0; i < t.shape.rank - 1; ++i) s.rows *= t.shape.dims[i];
  return s;
}

// gemm(a, b, bias | null, c, transposeA, transposeB, accumulate, batched)
void gemm(Call& call) {
  const TensorView a = call.tensor("a", kFloats), b = call.tensor("b", kFloats);
  Dim width("columns");
  const TensorView bias = call.optional("bias", kFloats, {&width});
  const TensorView c = call.tensor("c", kFloats);
  GemmOptions o;
  o.transpose_a = call.boolean("transposeA");
  o.transpose_b = call.boolean("transposeB");
  o.accumulate = call.boolean("accumulate");
  o.batched = call.boolean("batched");
  call.same_dtype("a", a, "b", b);
  call.same_dtype("a", a, "bias", bias);
  call.require(c.dtype == a.dtype || (a.dtype == Dtype::bf16 && c.dtype == Dtype::f32), "ERR_LIBMOE_DTYPE",
               std::string("c must be ") + name_of(a.dtype) + (a.dtype == Dtype::bf16 ? " or f32" : "") + ", got " + name_of(c.dtype));
  Sides left = sides_of(call, "a", a, o.batched), right = sides_of(call, "b", b, o.batched);
  const Sides out = sides_of(call, "c", c, o.batched);
  if (o.transpose_a) std::swap(left.rows, left.columns);
  if (o.transpose_b) std::swap(right.rows, right.columns);
  call.require(left.columns == right.rows && left.batch == right.batch, "ERR_LIBMOE_SHAPE",
               "the inner dimensions differ: a is " + a.shape.text() + (o.transpose_a ? " transposed" : "") + ", b is " + b.shape.text() + (o.transpose_b ? " transposed" : ""));
  call.require(out.batch == left.batch && out.rows == left.rows && out.columns == right.columns, "ERR_LIBMOE_SHAPE",
               "c must be [" + std::to_string(left.rows) + ", " + std::to_string(right.columns) + "] per product, got " + c.shape.text());
  call.require(!bias || bias.shape[0] == right.columns, "ERR_LIBMOE_SHAPE", "bias must be [" + std::to_string(right.columns) + "], got " + bias.shape.text());
  ops(call).gemm(a, b, bias, c, o);
}

// columnSums(x, y, accumulate)
void column_sums(Call& call) {
  Dim n("columns");
  const TensorView x = call.tensor("x", kFloats), y = call.tensor("y", kWide, {&n});
  const bool accumulate = call.boolean("accumulate");
  call.require(x.shape.rank >= 1 && x.shape[-1] == n, "ERR_LIBMOE_SHAPE", "y must be [" + std::to_string(x.shape.rank ? x.shape[-1] : 0) + "], got " + y.shape.text());
  call.require((x.dtype == Dtype::f64) == (y.dtype == Dtype::f64), "ERR_LIBMOE_DTYPE", "y must be f64 for f64, else f32");
  ops(call).column_sums(x, y, accumulate);
}

}  // namespace

void bind_gemm(Napi::Object exports) {
  expose(exports, "gemm", gemm);
  expose(exports, "columnSums", column_sums);
}

}  // namespace libmoe::binding

#include "ops/elementwise.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const ElementwiseOps& ops(const Call& call) { return call.family(&Backend::elementwise); }

void same_size(const Call& call, const TensorView& x, const TensorView& y) {
  call.require(x.elements() == y.elements(), "ERR_LIBMOE_SHAPE", "the tensors have " + x.shape.text() + " and " + y.shape.text() + " elements");
}

Broadcast broadcast_of(const Call& call, const TensorView& a, const TensorView& b, const TensorView& y) {
  Broadcast r;
  r.shape = y.shape;
  const auto strides = [&](const TensorView& t, std::array<int64_t, kMaxRank>& out) {
    const int missing = y.shape.rank - t.shape.rank;
    int64_t stride = 1;
    bool fits = missing >= 0;
    for (int i = t.shape.rank - 1; fits && i >= 0; --i) {
      const int64_t size = t.shape[i], wanted = y.shape.dims[i + missing];
      fits = size == wanted || size == 1;
      out[i + missing] = size == 1 ? 0 : stride;
      stride *= size;
    }
    call.require(fits, "ERR_LIBMOE_SHAPE", "cannot broadcast " + t.shape.text() + " to " + y.shape.text());
  };
  strides(a, r.a_strides);
  strides(b, r.b_strides);
  return r;
}

// unary(f, x, y)
void unary(Call& call) {
  const auto f = static_cast<Unary>(call.integer("f", 0, int(Unary::softplus)));
  const TensorView x = call.tensor("x", kFloats), y = call.tensor("y", kFloats);
  call.same_dtype("x", x, "y", y);
  same_size(call, x, y);
  ops(call).unary(f, x, y);
}

// unaryBackward(f, x, dy, dx)
void unary_backward(Call& call) {
  const auto f = static_cast<Unary>(call.integer("f", 0, int(Unary::softplus)));
  const TensorView x = call.tensor("x", kFloats), dy = call.tensor("dy", kFloats), dx = call.tensor("dx", kFloats);
  call.same_dtype("x", x, "dy", dy);
  call.same_dtype("x", x, "dx", dx);
  same_size(call, x, dy);
  same_size(call, x, dx);
  ops(call).unary_backward(f, x, dy, dx);
}

// What gated and gatedBackward take: z of rows twice as wide as those of y.
void check_gated(const Call& call, const TensorView& z, const TensorView& y) {
  call.same_dtype("z", z, "y", y);
  call.require(z.shape.rank > 0 && y.shape.rank > 0 && z.shape[-1] == 2 * y.shape[-1] && z.elements() == 2 * y.elements(), "ERR_LIBMOE_SHAPE",
               "gated expects rows of a gate and of its factor, twice as wide as the result, got " + z.shape.text() + " for " + y.shape.text());
}

// gated(f, z, y)
void gated(Call& call) {
  const auto f = static_cast<Activation>(call.integer("f", 0, int(Activation::clamped_swiglu)));
  const TensorView z = call.tensor("z", kFloats), y = call.tensor("y", kFloats);
  check_gated(call, z, y);
  ops(call).gated(f, z, y);
}

// gatedBackward(f, z, dy, dz)
void gated_backward(Call& call) {
  const auto f = static_cast<Activation>(call.integer("f", 0, int(Activation::clamped_swiglu)));
  const TensorView z = call.tensor("z", kFloats), dy = call.tensor("dy", kFloats), dz = call.tensor("dz", kFloats);
  check_gated(call, z, dy);
  check_gated(call, dz, dy);
  ops(call).gated_backward(f, z, dy, dz);
}

// binary(f, a, b, y)
void binary(Call& call) {
  const auto f = static_cast<Binary>(call.integer("f", 0, int(Binary::equal)));
  const TensorView a = call.tensor("a", kFloats), b = call.tensor("b", kFloats), y = call.tensor("y", kFloats);
  call.same_dtype("a", a, "b", b);
  call.same_dtype("a", a, "y", y);
  ops(call).binary(f, a, b, y, broadcast_of(call, a, b, y));
}

// affine(x, y, alpha, beta)
void affine(Call& call) {
  const TensorView x = call.tensor("x", kFloats), y = call.tensor("y", kFloats);
  call.same_dtype("x", x, "y", y);
  same_size(call, x, y);
  const double alpha = call.number("alpha"), beta = call.number("beta");
  ops(call).affine(x, y, alpha, beta);
}

// accumulate(x, y, alpha)
void accumulate(Call& call) {
  const TensorView x = call.tensor("x", kFloats), y = call.tensor("y", kFloats);
  same_size(call, x, y);
  call.require(y.dtype == x.dtype || (x.dtype == Dtype::bf16 && y.dtype == Dtype::f32), "ERR_LIBMOE_DTYPE", "the accumulator must have the dtype of x, or be f32 for bf16");
  ops(call).accumulate(x, y, call.number("alpha"));
}

void cast(Call& call) {
  const TensorView x = call.tensor("x", kAny), y = call.tensor("y", kAny);
  same_size(call, x, y);
  ops(call).cast(x, y);
}

// dequantiseMxfp4(blocks, scales, y)
void dequantise_mxfp4(Call& call) {
  Dim groups("groups"), bytes("bytes", 16), width("width", 32);
  const TensorView blocks = call.tensor("blocks", kU8, {&groups, &bytes}), scales = call.tensor("scales", kU8, {&groups}), y = call.tensor("y", kFloats, {&groups, &width});
  ops(call).dequantise_mxfp4(blocks, scales, y);
}

void fill(Call& call) {
  const TensorView y = call.tensor("y", kAny);
  ops(call).fill(y, call.number("value"));
}

// where(mask, a, b, y)
void where(Call& call) {
  const TensorView mask = call.tensor("mask", kBool), a = call.tensor("a", kFloats), b = call.tensor("b", kFloats), y = call.tensor("y", kFloats);
  call.same_dtype("a", a, "b", b);
  call.same_dtype("a", a, "y", y);
  same_size(call, mask, y);
  same_size(call, a, y);
  same_size(call, b, y);
  ops(call).where(mask, a, b, y);
}

}  // namespace

void bind_elementwise(Napi::Object exports) {
  expose(exports, "unary", unary);
  expose(exports, "unaryBackward", unary_backward);
  expose(exports, "gated", gated);
  expose(exports, "gatedBackward", gated_backward);
  expose(exports, "binary", binary);
  expose(exports, "affine", affine);
  expose(exports, "accumulate", accumulate);
  expose(exports, "cast", cast);
  expose(exports, "dequantiseMxfp4", dequantise_mxfp4);
  expose(exports, "fill", fill);
  expose(exports, "where", where);
}

}  // namespace libmoe::binding

#include "ops/grouped_ffn.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const GroupedFfnOps& ops(const Call& call) { return call.family(&Backend::grouped_ffn); }

struct Sizes {
  Dim tokens{"tokens"}, model{"d"}, experts{"experts"}, choices{"topK"}, slots{"tokens * topK"}, bounds{"experts + 1"}, hidden{"hidden"}, full{"up rows"};
};

// activation, gated, x, rows, offsets, inverse, weights, up, upBias | null, down, downBias | null
GroupedFfn layer_of(Call& call, Sizes& s) {
  GroupedFfn f;
  f.activation = static_cast<Activation>(call.integer("activation", 0, int(Activation::clamped_swiglu)));
  f.gated = call.boolean("gated");
  call.require(f.gated || f.activation != Activation::clamped_swiglu, "ERR_LIBMOE_ARGUMENT", "the activation clamped_swiglu is for gated experts");
  f.x = call.tensor("x", kFloats, {&s.tokens, &s.model});
  f.rows = call.tensor("rows", kI32, {&s.slots});
  f.offsets = call.tensor("offsets", kI32, {&s.bounds});
  s.experts.value = s.bounds - 1;
  f.inverse = call.tensor("inverse", kI32, {&s.tokens, &s.choices});
  f.weights = call.tensor("weights", kWide, {&s.tokens, &s.choices});
  f.up = call.tensor("up", kFloats, {&s.experts, &s.full, &s.model});
  f.up_bias = call.optional("upBias", kFloats, {&s.experts, &s.full});
  f.down = call.tensor("down", kFloats, {&s.experts, &s.model, &s.hidden});
  f.down_bias = call.optional("downBias", kFloats, {&s.experts, &s.model});
  call.require(s.experts >= 1 && s.slots == s.tokens * s.choices, "ERR_LIBMOE_SHAPE", "the plan is for other numbers of tokens, choices or experts than x and weights");
  call.require(s.full == (f.gated ? 2 : 1) * s.hidden, "ERR_LIBMOE_SHAPE",
               "up must have " + std::string(f.gated ? "2 * hidden rows (gate, then up) because the experts are gated" : "hidden rows because the experts are not gated") + ": hidden is " +
                   std::to_string(s.hidden) + ", got " + std::to_string(s.full));
  call.require(s.hidden > 0 && s.model > 0, "ERR_LIBMOE_SHAPE", "d and hidden must be positive");
  call.same_dtype("x", f.x, "up", f.up);
  call.same_dtype("x", f.x, "upBias", f.up_bias);
  call.same_dtype("x", f.x, "down", f.down);
  call.same_dtype("x", f.x, "downBias", f.down_bias);
  call.require((f.x.dtype == Dtype::f64) == (f.weights.dtype == Dtype::f64), "ERR_LIBMOE_DTYPE",
               std::string("weights must be ") + (f.x.dtype == Dtype::f64 ? "f64 like x" : "f32") + ", got " + name_of(f.weights.dtype));
  return f;
}

TensorView pre_activation(Call& call, const GroupedFfn& f, Sizes& s) {
  const TensorView z = call.optional("z", kFloats, {&s.slots, &s.full});
  call.same_dtype("x", f.x, "z", z);
  return z;
}

// groupedFfn(…layer, z | null, out)
void forward(Call& call) {
  Sizes s;
  const GroupedFfn f = layer_of(call, s);
  const TensorView z = pre_activation(call, f, s), out = call.tensor("out", kFloats, {&s.tokens, &s.model});
  call.same_dtype("x", f.x, "out", out);
  ops(call).forward(f, z, out);
}

// groupedFfnBackward(…layer, z | null, dOut, dx, dWeights, dUp, dUpBias, dDown, dDownBias (each may be null), addUp, addUpBias, addDown, addDownBias)
void backward(Call& call) {
  Sizes s;
  const GroupedFfn f = layer_of(call, s);
  const TensorView z = pre_activation(call, f, s), d_out = call.tensor("dOut", kFloats, {&s.tokens, &s.model});
  call.same_dtype("x", f.x, "dOut", d_out);
  GroupedFfnGradients g;
  g.dx = call.optional("dx", kFloats, {&s.tokens, &s.model});
  call.same_dtype("x", f.x, "dx", g.dx);
  g.weights = call.optional("dWeights", kWide, {&s.tokens, &s.choices});
  g.up = call.optional("dUp", kWide, {&s.experts, &s.full, &s.model});
  g.up_bias = call.optional("dUpBias", kWide, {&s.experts, &s.full});
  g.down = call.optional("dDown", kWide, {&s.experts, &s.model, &s.hidden});
  g.down_bias = call.optional("dDownBias", kWide, {&s.experts, &s.model});
  for (const TensorView* t : {&g.weights, &g.up, &g.up_bias, &g.down, &g.down_bias}) call.same_dtype("weights", f.weights, "a gradient", *t);
  g.add_up = call.boolean("addUp");
  g.add_up_bias = call.boolean("addUpBias");
  g.add_down = call.boolean("addDown");
  g.add_down_bias = call.boolean("addDownBias");
  ops(call).backward(f, z, d_out, g);
}

struct CheapSizes {
  Dim tokens{"tokens"}, model{"d"}, choices{"choices per token"}, constants{"constant experts"}, mixed{"2 * constant experts"};
};

// x, choices, weights, mix | null, vectors | null, first, copies
CheapExperts cheap_of(Call& call, CheapSizes& s) {
  CheapExperts e;
  e.x = call.tensor("x", kFloats, {&s.tokens, &s.model});
  e.choices = call.tensor("choices", kI32, {&s.tokens, &s.choices});
  e.weights = call.tensor("weights", kWide, {&s.tokens, &s.choices});
  e.mix = call.optional("mix", kWide, {&s.tokens, &s.mixed});
  e.vectors = call.optional("vectors", kWide, {&s.constants, &s.model});
  e.first = call.integer("first", 0, int64_t(1) << 30);
  e.copies = call.integer("copies", 0, int64_t(1) << 30);
  call.require(bool(e.mix) == bool(e.vectors) && (!e.mix || s.mixed == 2 * s.constants), "ERR_LIBMOE_SHAPE", "mix must have two columns for each of the vectors");
  call.require((e.x.dtype == Dtype::f64) == (e.weights.dtype == Dtype::f64), "ERR_LIBMOE_DTYPE",
               std::string("weights must be ") + (e.x.dtype == Dtype::f64 ? "f64 like x" : "f32") + ", got " + name_of(e.weights.dtype));
  call.same_dtype("weights", e.weights, "mix", e.mix);
  call.same_dtype("weights", e.weights, "vectors", e.vectors);
  return e;
}

// cheapExperts(…, out)
void cheap(Call& call) {
  CheapSizes s;
  const CheapExperts e = cheap_of(call, s);
  const TensorView out = call.tensor("out", kFloats, {&s.tokens, &s.model});
  call.same_dtype("x", e.x, "out", out);
  ops(call).cheap(e, out);
}

// cheapExpertsBackward(…, dOut, dx, dWeights, dMix | null, dVectors | null)
void cheap_backward(Call& call) {
  CheapSizes s;
  const CheapExperts e = cheap_of(call, s);
  const TensorView d_out = call.tensor("dOut", kFloats, {&s.tokens, &s.model}), dx = call.tensor("dx", kFloats, {&s.tokens, &s.model}),
                   dweights = call.tensor("dWeights", kWide, {&s.tokens, &s.choices}), dmix = call.optional("dMix", kWide, {&s.tokens, &s.mixed}),
                   dvectors = call.optional("dVectors", kWide, {&s.constants, &s.model});
  call.same_dtype("x", e.x, "dOut", d_out);
  call.same_dtype("x", e.x, "dx", dx);
  for (const TensorView* t : {&dweights, &dmix, &dvectors}) call.same_dtype("weights", e.weights, "a gradient", *t);
  call.require(bool(dmix) == bool(e.mix) && bool(dvectors) == bool(e.vectors), "ERR_LIBMOE_ARGUMENT", "gradients of mix and vectors are given where these are");
  ops(call).cheap_backward(e, d_out, dx, dweights, dmix, dvectors);
}

}  // namespace

void bind_grouped_ffn(Napi::Object exports) {
  expose(exports, "groupedFfn", forward);
  expose(exports, "groupedFfnBackward", backward);
  expose(exports, "cheapExperts", cheap);
  expose(exports, "cheapExpertsBackward", cheap_backward);
}

}  // namespace libmoe::binding

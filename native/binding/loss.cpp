#include "ops/loss.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const LossOps& ops(const Call& call) { return call.family(&Backend::loss); }

// Losses, statistics and accumulated gradients: f32, or f64 where the data are f64.
void wide(const Call& call, const TensorView& data, const char* name, const TensorView& t) {
  if (!t) return;
  const Dtype expected = data.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  call.require(t.dtype == expected, "ERR_LIBMOE_DTYPE", std::string(name) + " must be " + name_of(expected) + ", got " + name_of(t.dtype));
}

int64_t chunk_of(Call& call) { return call.integer("chunk", 0, int64_t(1) << 31); }

// linearCrossEntropy(hidden, weight, bias, targets, loss, dHidden, dWeight, dBias, chunk)
void linear_cross_entropy(Call& call) {
  Dim tokens("tokens"), d("d"), vocabulary("vocabulary");
  LinearCrossEntropy x;
  x.hidden = call.tensor("hidden", kFloats, {&tokens, &d});
  x.weight = call.tensor("weight", kFloats, {&vocabulary, &d});
  x.bias = call.optional("bias", kFloats, {&vocabulary});
  x.targets = call.tensor("targets", kI32, {&tokens});
  x.loss = call.tensor("loss", kWide, {});
  x.d_hidden = call.optional("dHidden", kFloats, {&tokens, &d});
  x.d_weight = call.optional("dWeight", kWide, {&vocabulary, &d});
  x.d_bias = call.optional("dBias", kWide, {&vocabulary});
  x.chunk = chunk_of(call);
  call.same_dtype("hidden", x.hidden, "weight", x.weight);
  call.same_dtype("hidden", x.hidden, "bias", x.bias);
  call.same_dtype("hidden", x.hidden, "dHidden", x.d_hidden);
  wide(call, x.hidden, "loss", x.loss);
  wide(call, x.hidden, "dWeight", x.d_weight);
  wide(call, x.hidden, "dBias", x.d_bias);
  ops(call).linear_cross_entropy(x);
}

// crossEntropy(logits, targets, loss, logSumExp)
void cross_entropy(Call& call) {
  Dim tokens("tokens"), vocabulary("vocabulary");
  const TensorView logits = call.tensor("logits", kFloats, {&tokens, &vocabulary}), targets = call.tensor("targets", kI32, {&tokens}),
                   loss = call.tensor("loss", kWide, {}), lse = call.tensor("logSumExp", kWide, {&tokens});
  wide(call, logits, "loss", loss);
  wide(call, logits, "logSumExp", lse);
  ops(call).cross_entropy(logits, targets, loss, lse);
}

// crossEntropyBackward(logits, targets, logSumExp, dloss, dlogits)
void cross_entropy_backward(Call& call) {
  Dim tokens("tokens"), vocabulary("vocabulary");
  const TensorView logits = call.tensor("logits", kFloats, {&tokens, &vocabulary}), targets = call.tensor("targets", kI32, {&tokens}),
                   lse = call.tensor("logSumExp", kWide, {&tokens}), dloss = call.tensor("dloss", kWide, {}),
                   dlogits = call.tensor("dlogits", kFloats, {&tokens, &vocabulary});
  wide(call, logits, "logSumExp", lse);
  wide(call, logits, "dloss", dloss);
  call.same_dtype("logits", logits, "dlogits", dlogits);
  ops(call).cross_entropy_backward(logits, targets, lse, dloss, dlogits);
}

// tokenLogProbabilities(hidden, weight, bias, targets, logProbability, greedy, chunk)
void token_log_probabilities(Call& call) {
  Dim tokens("tokens"), d("d"), vocabulary("vocabulary");
  const TensorView hidden = call.tensor("hidden", kFloats, {&tokens, &d}), weight = call.tensor("weight", kFloats, {&vocabulary, &d}),
                   bias = call.optional("bias", kFloats, {&vocabulary}), targets = call.tensor("targets", kI32, {&tokens}),
                   log_probability = call.tensor("logProbability", kF64, {&tokens}), greedy = call.tensor("greedy", kI32, {&tokens});
  const int64_t chunk = chunk_of(call);
  call.same_dtype("hidden", hidden, "weight", weight);
  call.same_dtype("hidden", hidden, "bias", bias);
  call.require(vocabulary > 0 || tokens == 0, "ERR_LIBMOE_SHAPE", "the vocabulary must not be empty");
  ops(call).token_log_probabilities(hidden, weight, bias, targets, log_probability, greedy, chunk);
}

// linearLogits(hidden, weight, bias, logits)
void linear_logits(Call& call) {
  Dim tokens("tokens"), d("d"), vocabulary("vocabulary");
  const TensorView hidden = call.tensor("hidden", kFloats, {&tokens, &d}), weight = call.tensor("weight", kFloats, {&vocabulary, &d}),
                   bias = call.optional("bias", kFloats, {&vocabulary}), logits = call.tensor("logits", kWide, {&tokens, &vocabulary});
  call.same_dtype("hidden", hidden, "weight", weight);
  call.same_dtype("hidden", hidden, "bias", bias);
  wide(call, hidden, "logits", logits);
  ops(call).linear_logits(hidden, weight, bias, logits);
}

// scaleGradient(x, factor, y, accumulate)
void scale_gradient(Call& call) {
  const TensorView x = call.tensor("x", kFloats), factor = call.tensor("factor", kWide, {}), y = call.tensor("y", kFloats);
  wide(call, x, "factor", factor);
  call.require(y.elements() == x.elements(), "ERR_LIBMOE_SHAPE", "y must be " + x.shape.text() + ", got " + y.shape.text());
  call.require(y.dtype == x.dtype || (x.dtype == Dtype::bf16 && y.dtype == Dtype::f32), "ERR_LIBMOE_DTYPE", "y must have the dtype of x, or be f32 for bf16");
  ops(call).scale_gradient(x, factor, y, call.boolean("accumulate"));
}

}  // namespace

void bind_loss(Napi::Object exports) {
  expose(exports, "linearCrossEntropy", linear_cross_entropy);
  expose(exports, "crossEntropy", cross_entropy);
  expose(exports, "crossEntropyBackward", cross_entropy_backward);
  expose(exports, "tokenLogProbabilities", token_log_probabilities);
  expose(exports, "linearLogits", linear_logits);
  expose(exports, "scaleGradient", scale_gradient);
}

}  // namespace libmoe::binding

#include "ops/gating.h"

#include <algorithm>

#include "binding/families.h"

namespace libmoe::binding {
namespace {

struct Arguments {
  Dim tokens{"tokens"}, experts{"experts"}, sequences{"sequences"}, k{"topK"};
  GatingInputs in;
  GatingOptions options;
};

// logits, bias?, mask?, sequenceOffsets?, topK, score, rule, epsilon, probability, groups, keptGroups, groupTop, given
void read(Call& call, Arguments& a) {
  a.in.logits = call.tensor("logits", kWide, {&a.tokens, &a.experts});
  a.in.bias = call.optional("bias", kWide, {&a.experts});
  a.in.mask = call.optional("mask", kBool, {&a.tokens});
  Dim bounds("sequences + 1");
  a.in.sequence_offsets = call.optional("sequenceOffsets", kI32, {&bounds});
  a.sequences.value = a.in.sequence_offsets ? bounds - 1 : 1;
  call.same_dtype("logits", a.in.logits, "bias", a.in.bias);
  call.require(a.tokens > 0 && a.experts > 0, "ERR_LIBMOE_SHAPE", "logits must be [tokens, experts] with at least one of each, got " + a.in.logits.shape.text());
  call.require(a.sequences >= 1, "ERR_LIBMOE_SHAPE", "sequenceOffsets must hold at least two numbers, 0 and the number of tokens");
  a.k.value = call.integer("topK", 1, 1024);
  call.require(a.k <= a.experts, "ERR_LIBMOE_ARGUMENT",
               "topK must not exceed the number of experts, " + std::to_string(a.experts.value) + ", got " + std::to_string(a.k.value));
  GatingOptions& o = a.options;
  o.score = static_cast<Score>(call.integer("score", 0, 1));
  o.rule = static_cast<WeightRule>(call.integer("rule", 0, 2));
  o.epsilon = call.number("epsilon");
  o.probability = static_cast<Probability>(call.integer("probability", 0, 2));
  o.groups = call.integer("groups", 1, 1024);
  o.kept_groups = call.integer("keptGroups", 1, o.groups);
  o.group_top = call.integer("groupTop", 1, 1024);
  o.given = call.boolean("given");
  call.require(o.epsilon >= 0, "ERR_LIBMOE_ARGUMENT", "epsilon must be at least 0");
  call.require(a.experts % o.groups == 0, "ERR_LIBMOE_ARGUMENT",
               "groups must divide the number of experts, " + std::to_string(a.experts.value) + ", got " + std::to_string(o.groups));
  call.require(a.k <= a.experts / o.groups * o.kept_groups, "ERR_LIBMOE_ARGUMENT", "topK must not exceed the number of experts in the kept groups");
}

// gateForward(…, experts, weights, lse, sums, counts, firstCounts, summary, probabilities?, entropy?)
void forward(Call& call) {
  Arguments a;
  read(call, a);
  GatingOutputs out;
  Dim columns("columns", kGatingSummary);
  out.experts = call.tensor("experts", kI32, {&a.tokens, &a.k});
  out.weights = call.tensor("weights", kWide, {&a.tokens, &a.k});
  out.lse = call.tensor("logSumExp", kWide, {&a.tokens});
  out.sums = call.tensor("probabilitySums", kWide, {&a.sequences, &a.experts});
  out.counts = call.tensor("counts", kI32, {&a.sequences, &a.experts});
  out.first_counts = call.tensor("firstCounts", kI32, {&a.sequences, &a.experts});
  out.summary = call.tensor("summary", kWide, {&a.sequences, &columns});
  out.probabilities = call.optional("probabilities", kWide, {&a.tokens, &a.experts});
  out.entropy = call.optional("entropy", kWide, {&a.tokens});
  for (const TensorView* t : std::initializer_list<const TensorView*>{&out.weights, &out.lse, &out.sums, &out.summary, &out.probabilities, &out.entropy}) call.same_dtype("logits", a.in.logits, "every output", *t);
  call.family(&Backend::gating).forward(a.in, a.options, out);
}

// gateBackward(…, experts, weights, dWeights?, dLse?, dSums?, dProbabilities?, dEntropy?, dlogits)
void backward(Call& call) {
  Arguments a;
  read(call, a);
  const TensorView experts = call.tensor("experts", kI32, {&a.tokens, &a.k}), weights = call.tensor("weights", kWide, {&a.tokens, &a.k});
  GatingGradients g;
  g.weights = call.optional("dWeights", kWide, {&a.tokens, &a.k});
  g.lse = call.optional("dLogSumExp", kWide, {&a.tokens});
  g.sums = call.optional("dProbabilitySums", kWide, {&a.sequences, &a.experts});
  g.probabilities = call.optional("dProbabilities", kWide, {&a.tokens, &a.experts});
  g.entropy = call.optional("dEntropy", kWide, {&a.tokens});
  const TensorView dlogits = call.tensor("dlogits", kWide, {&a.tokens, &a.experts});
  for (const TensorView* t : std::initializer_list<const TensorView*>{&weights, &g.weights, &g.lse, &g.sums, &g.probabilities, &g.entropy, &dlogits}) call.same_dtype("logits", a.in.logits, "every gradient", *t);
  call.family(&Backend::gating).backward(a.in, a.options, experts, weights, g, dlogits);
}

// scores, noise, mask?, floor, k
NoisyInputs read_noisy(Call& call, Dim& tokens, Dim& experts) {
  NoisyInputs in;
  Dim both("2 * experts");
  in.scores = call.tensor("scores", kWide, {&tokens, &both});
  in.noise = call.tensor("noise", kWide, {&tokens, &experts});
  in.mask = call.optional("mask", kBool, {&tokens});
  in.floor = call.number("floor");
  call.require(both == 2 * experts, "ERR_LIBMOE_SHAPE", "scores must be [tokens, 2 * experts], got " + in.scores.shape.text());
  in.k = call.integer("k", 0, std::max<int64_t>(0, experts - 1));
  call.same_dtype("scores", in.scores, "noise", in.noise);
  return in;
}

// noisyForward(…, logits, load, rivals)
void noisy(Call& call) {
  Dim tokens("tokens"), experts("experts"), two("two", 2);
  const NoisyInputs in = read_noisy(call, tokens, experts);
  const TensorView logits = call.tensor("logits", kWide, {&tokens, &experts}), load = call.tensor("load", kWide, {&experts}),
                   rivals = call.tensor("rivals", kI32, {&tokens, &two});
  call.same_dtype("scores", in.scores, "logits", logits);
  call.same_dtype("scores", in.scores, "load", load);
  call.family(&Backend::gating).noisy(in, logits, load, rivals);
}

// noisyBackward(…, logits, rivals, dlogits?, dload?, dscores)
void noisy_backward(Call& call) {
  Dim tokens("tokens"), experts("experts"), two("two", 2), both("2 * experts");
  const NoisyInputs in = read_noisy(call, tokens, experts);
  const TensorView logits = call.tensor("logits", kWide, {&tokens, &experts}), rivals = call.tensor("rivals", kI32, {&tokens, &two}),
                   dlogits = call.optional("dlogits", kWide, {&tokens, &experts}), dload = call.optional("dload", kWide, {&experts}),
                   dscores = call.tensor("dscores", kWide, {&tokens, &both});
  for (const TensorView* t : std::initializer_list<const TensorView*>{&logits, &dlogits, &dload, &dscores}) call.same_dtype("scores", in.scores, "every gradient", *t);
  call.require(both == 2 * experts, "ERR_LIBMOE_SHAPE", "dscores must be [tokens, 2 * experts], got " + dscores.shape.text());
  call.family(&Backend::gating).noisy_backward(in, logits, rivals, dlogits, dload, dscores);
}

// expertLists(scores, mask?, each?, experts, most)
void lists(Call& call) {
  Dim tokens("tokens"), count("experts"), one("one", 1);
  const TensorView scores = call.tensor("scores", kWide, {&tokens, &count}), mask = call.optional("mask", kBool, {&tokens});
  const TensorView each = call.optional("each", kI32, {&one});
  const TensorView experts = call.tensor("experts", kI32, {&tokens, &count}), most = call.tensor("most", kI32, {&one});
  call.family(&Backend::gating).lists(scores, mask, each, experts, most);
}

// take(values, experts, out)
void take(Call& call) {
  Dim tokens("tokens"), count("experts"), k("topK");
  const TensorView values = call.tensor("values", kWide, {&tokens, &count}), experts = call.tensor("experts", kI32, {&tokens, &k}),
                   out = call.tensor("out", kWide, {&tokens, &k});
  call.same_dtype("values", values, "out", out);
  call.family(&Backend::gating).take(values, experts, out);
}

// takeBackward(experts, dout, dvalues)
void take_backward(Call& call) {
  Dim tokens("tokens"), count("experts"), k("topK");
  const TensorView experts = call.tensor("experts", kI32, {&tokens, &k}), dout = call.tensor("dout", kWide, {&tokens, &k}),
                   dvalues = call.tensor("dvalues", kWide, {&tokens, &count});
  call.same_dtype("dout", dout, "dvalues", dvalues);
  call.family(&Backend::gating).take_backward(experts, dout, dvalues);
}

}  // namespace

void bind_gating(Napi::Object exports) {
  expose(exports, "gateForward", forward);
  expose(exports, "gateBackward", backward);
  expose(exports, "noisyForward", noisy);
  expose(exports, "noisyBackward", noisy_backward);
  expose(exports, "expertLists", lists);
  expose(exports, "take", take);
  expose(exports, "takeBackward", take_backward);
}

}  // namespace libmoe::binding

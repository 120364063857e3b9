#include "ops/optimizer.h"

#include <cmath>

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const OptimizerOps& ops(const Call& call) { return call.family(&Backend::optimizer); }

using Views = std::vector<TensorView>;

void same_count(const Call& call, const char* name, size_t expected, size_t got) {
  call.require(expected == got, "ERR_LIBMOE_ARGUMENT", "expected " + std::to_string(expected) + " " + name + ", one per parameter, got " + std::to_string(got));
}

// Checks the i-th tensor of a list against its parameter. `type`: of the parameter itself, or what it accumulates in.
void check(const Call& call, const char* name, size_t i, const TensorView& parameter, const TensorView& t, bool own_type_too) {
  const Dtype wide = parameter.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const std::string which = std::string(name) + "[" + std::to_string(i) + "]";
  call.require(t.elements() == parameter.elements(), "ERR_LIBMOE_SHAPE", which + " must be " + parameter.shape.text() + " like its parameter, got " + t.shape.text());
  call.require(t.dtype == wide || (own_type_too && t.dtype == parameter.dtype), "ERR_LIBMOE_DTYPE",
               which + " must be " + name_of(wide) + " for a parameter of " + name_of(parameter.dtype) + ", got " + name_of(t.dtype));
}

// A list that may be empty as a whole; masters only make sense for bf16.
void check_masters(const Call& call, const Views& parameters, const Views& masters) {
  if (masters.empty()) return;
  same_count(call, "masters", parameters.size(), masters.size());
}
TensorView master_of(const Call& call, size_t i, const Views& parameters, const Views& masters) {
  if (masters.empty() || parameters[i].dtype != Dtype::bf16) return {};  // callers pass the parameter itself where it needs no master
  check(call, "masters", i, parameters[i], masters[i], false);
  return masters[i];
}

void check_rate(const Call& call, const char* name, double value) {
  call.require(std::isfinite(value) && value >= 0, "ERR_LIBMOE_ARGUMENT", std::string(name) + " must be finite and not negative, got " + std::to_string(value));
}
void check_below_one(const Call& call, const char* name, double value) {
  call.require(value >= 0 && value < 1, "ERR_LIBMOE_ARGUMENT", std::string(name) + " must be from 0 to below 1, got " + std::to_string(value));
}

std::vector<double> decays(Call& call, size_t parameters) {
  const std::vector<double> values = call.numbers("weightDecay");
  same_count(call, "weight decays", parameters, values.size());
  for (const double d : values) check_rate(call, "weightDecay", d);
  return values;
}

TensorView factor_of(Call& call) {
  Dim one("1", 1);
  return call.optional("factor", kF64, {&one});
}

// adamw(parameters, gradients, firstMoments, secondMoments, masters, weightDecays, [learningRate, beta1, beta2, epsilon, gradientScale, step], factor | null)
void adamw(Call& call) {
  const Views parameters = call.tensors("parameters", kFloats), gradients = call.tensors("gradients", kFloats), first = call.tensors("firstMoments", kWide),
              second = call.tensors("secondMoments", kWide), masters = call.tensors("masters", kFloats);
  same_count(call, "gradients", parameters.size(), gradients.size());
  same_count(call, "first moments", parameters.size(), first.size());
  same_count(call, "second moments", parameters.size(), second.size());
  check_masters(call, parameters, masters);
  const std::vector<double> decay = decays(call, parameters.size()), o = call.numbers("options");
  call.require(o.size() == 6, "ERR_LIBMOE_ARGUMENT", "options must be six numbers");
  AdamwOptions options{o[0], o[1], o[2], o[3], o[4], int64_t(o[5]), factor_of(call)};
  check_rate(call, "learningRate", options.learning_rate);
  check_below_one(call, "beta1", options.beta1);
  check_below_one(call, "beta2", options.beta2);
  check_rate(call, "epsilon", options.epsilon);
  call.require(o[5] >= 1 && o[5] == std::floor(o[5]), "ERR_LIBMOE_ARGUMENT", "step must be a positive integer, 1 for the first step");
  call.require(std::isfinite(options.gradient_scale), "ERR_LIBMOE_ARGUMENT", "gradientScale must be finite");
  std::vector<AdamwTensor> list;
  for (size_t i = 0; i < parameters.size(); ++i) {
    check(call, "gradients", i, parameters[i], gradients[i], true);
    check(call, "firstMoments", i, parameters[i], first[i], false);
    check(call, "secondMoments", i, parameters[i], second[i], false);
    list.push_back({parameters[i], gradients[i], first[i], second[i], master_of(call, i, parameters, masters), decay[i]});
  }
  if (!list.empty()) ops(call).adamw(list, options);
}

// sgd(parameters, gradients, momenta, masters, weightDecays, [learningRate, momentum, gradientScale, nesterov], factor | null)
void sgd(Call& call) {
  const Views parameters = call.tensors("parameters", kFloats), gradients = call.tensors("gradients", kFloats), momenta = call.tensors("momenta", kWide),
              masters = call.tensors("masters", kFloats);
  same_count(call, "gradients", parameters.size(), gradients.size());
  if (!momenta.empty()) same_count(call, "momenta", parameters.size(), momenta.size());
  check_masters(call, parameters, masters);
  const std::vector<double> decay = decays(call, parameters.size()), o = call.numbers("options");
  call.require(o.size() == 4, "ERR_LIBMOE_ARGUMENT", "options must be four numbers");
  SgdOptions options{o[0], o[1], o[2], o[3] != 0, factor_of(call)};
  check_rate(call, "learningRate", options.learning_rate);
  check_below_one(call, "momentum", options.momentum);
  call.require(std::isfinite(options.gradient_scale), "ERR_LIBMOE_ARGUMENT", "gradientScale must be finite");
  call.require(options.momentum == 0 || !momenta.empty() || parameters.empty(), "ERR_LIBMOE_ARGUMENT", "momentum needs one momentum tensor per parameter");
  call.require(!options.nesterov || options.momentum > 0, "ERR_LIBMOE_ARGUMENT", "nesterov needs momentum");
  std::vector<SgdTensor> list;
  for (size_t i = 0; i < parameters.size(); ++i) {
    check(call, "gradients", i, parameters[i], gradients[i], true);
    if (!momenta.empty()) check(call, "momenta", i, parameters[i], momenta[i], false);
    list.push_back({parameters[i], gradients[i], momenta.empty() ? TensorView{} : momenta[i], master_of(call, i, parameters, masters), decay[i]});
  }
  if (!list.empty()) ops(call).sgd(list, options);
}

// globalNorm(tensors, norm)
void global_norm(Call& call) {
  Dim one("1", 1);
  const Views tensors = call.tensors("tensors", kFloats);
  const TensorView norm = call.tensor("norm", kF64, {&one});
  ops(call).global_norm(tensors, norm);
}

// clipFactor(norm, losses, limit, factor)
void clip_factor(Call& call) {
  Dim one("1", 1);
  const TensorView norm = call.tensor("norm", kF64, {&one});
  const Views losses = call.tensors("losses", kWide);
  const double limit = call.number("limit");
  call.require(limit > 0, "ERR_LIBMOE_ARGUMENT", "limit must be positive, got " + std::to_string(limit));
  ops(call).clip_factor(norm, losses, limit, call.tensor("factor", kF64, {&one}));
}

// nonFinite(tensors) -> index or -1
Napi::Value non_finite(Call& call) {
  const Views tensors = call.tensors("tensors", kFloats);
  return Napi::Number::New(call.env(), tensors.empty() ? -1.0 : double(ops(call).non_finite(tensors)));
}

}  // namespace

void bind_optimizer(Napi::Object exports) {
  expose(exports, "adamw", adamw);
  expose(exports, "sgd", sgd);
  expose(exports, "globalNorm", global_norm);
  expose(exports, "clipFactor", clip_factor);
  expose(exports, "nonFinite", non_finite);
}

}  // namespace libmoe::binding

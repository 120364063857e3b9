#include "ops/random.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

constexpr int64_t kExact = int64_t(1) << 53;

const RandomOps& ops(const Call& call) { return call.family(&Backend::random); }

RandomSource source_of(Call& call) {
  RandomSource s;
  s.seed = uint64_t(call.integer("seed", 0, kExact - 1));
  s.stream = uint64_t(call.integer("stream", 0, kExact - 1));
  return s;
}

// randomUniform(y, seed, stream, low, high)
void uniform(Call& call) {
  const TensorView y = call.tensor("y", kFloats);
  const RandomSource source = source_of(call);
  const double low = call.number("low"), high = call.number("high");
  call.require(low <= high && high - low < 1e38, "ERR_LIBMOE_ARGUMENT", "low must not exceed high, and both must be finite");
  ops(call).uniform(y, source, low, high);
}

// randomUniformRows(y, streams, seed, low, high)
void uniform_rows(Call& call) {
  Dim rows("rows"), n("numbers");
  const TensorView y = call.tensor("y", kFloats, {&rows, &n}), streams = call.tensor("streams", kI32, {&rows});
  const uint64_t seed = uint64_t(call.integer("seed", 0, kExact - 1));
  const double low = call.number("low"), high = call.number("high");
  call.require(low <= high && high - low < 1e38, "ERR_LIBMOE_ARGUMENT", "low must not exceed high, and both must be finite");
  ops(call).uniform_rows(y, streams, seed, low, high);
}

// randomNormal(y, seed, stream, mean, deviation)
void normal(Call& call) {
  const TensorView y = call.tensor("y", kFloats);
  const RandomSource source = source_of(call);
  const double mean = call.number("mean"), deviation = call.number("std");
  call.require(deviation >= 0 && deviation < 1e38, "ERR_LIBMOE_ARGUMENT", "std must be finite and not negative");
  ops(call).normal(y, source, mean, deviation);
}

// randomTruncatedNormal(y, seed, stream, deviation, bound)
void truncated_normal(Call& call) {
  const TensorView y = call.tensor("y", kFloats);
  const RandomSource source = source_of(call);
  const double deviation = call.number("std"), bound = call.number("bound");
  call.require(deviation >= 0 && deviation < 1e38, "ERR_LIBMOE_ARGUMENT", "std must be finite and not negative");
  call.require(bound > 0, "ERR_LIBMOE_ARGUMENT", "bound (in standard deviations) must be positive");
  ops(call).truncated_normal(y, source, deviation, bound);
}

// randomBernoulli(y, seed, stream, probability)
void bernoulli(Call& call) {
  const TensorView y = call.tensor("y", kFloats | kBool | kU8);
  const RandomSource source = source_of(call);
  const double p = call.number("probability");
  call.require(p >= 0 && p <= 1, "ERR_LIBMOE_ARGUMENT", "the probability must be from 0 to 1, got " + std::to_string(p));
  ops(call).bernoulli(y, source, p);
}

// randomPermutation(y, seed, stream)
void permutation(Call& call) {
  Dim n("n");
  const TensorView y = call.tensor("y", kI32, {&n});
  const RandomSource source = source_of(call);
  ops(call).permutation(y, source);
}

}  // namespace

void bind_random(Napi::Object exports) {
  expose(exports, "randomUniform", uniform);
  expose(exports, "randomUniformRows", uniform_rows);
  expose(exports, "randomNormal", normal);
  expose(exports, "randomTruncatedNormal", truncated_normal);
  expose(exports, "randomBernoulli", bernoulli);
  expose(exports, "randomPermutation", permutation);
}

}  // namespace libmoe::binding

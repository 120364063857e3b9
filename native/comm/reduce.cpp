// Bound by memory: every input is read once and the result written once, in blocks that stay in the first-level cache between inputs.
#include "comm/reduce.h"

#include <algorithm>

#include "core/error.h"

namespace libmoe::comm {
namespace {

constexpr int64_t kBlock = 2048;

template <class A> A larger(A a, A b) { return a > b || a != a ? a : b; }  // a NaN stays

template <class T, class A> void blocks(Reduction f, const void* const* inputs, int count, void* to, int64_t elements) {
  A sum[kBlock];
  for (int64_t begin = 0; begin < elements; begin += kBlock) {
    const int64_t n = std::min(kBlock, elements - begin);
    for (int k = 0; k < count; ++k) {
      const T* x = static_cast<const T*>(inputs[k]) + begin;
      if (k == 0)
        for (int64_t i = 0; i < n; ++i) sum[i] = A(x[i]);
      else if (f == Reduction::sum)
        for (int64_t i = 0; i < n; ++i) sum[i] += A(x[i]);
      else
        for (int64_t i = 0; i < n; ++i) sum[i] = larger(sum[i], A(x[i]));
    }
    T* y = static_cast<T*>(to) + begin;
    for (int64_t i = 0; i < n; ++i) y[i] = T(sum[i]);
  }
}

// Integers wrap around, as on the device.
template <class T, class U> void integers(Reduction f, const void* const* inputs, int count, void* to, int64_t elements) {
  if (f == Reduction::sum) blocks<U, U>(f, inputs, count, to, elements);
  else blocks<T, T>(f, inputs, count, to, elements);
}

}  // namespace

void reduce(Dtype dtype, Reduction f, const void* const* inputs, int count, void* to, int64_t elements) {
  switch (dtype) {
    case Dtype::f32: return blocks<float, float>(f, inputs, count, to, elements);
    case Dtype::f64: return blocks<double, double>(f, inputs, count, to, elements);
    case Dtype::bf16: return blocks<bf16, float>(f, inputs, count, to, elements);
    case Dtype::i32: return integers<int32_t, uint32_t>(f, inputs, count, to, elements);
    case Dtype::i64: return integers<int64_t, uint64_t>(f, inputs, count, to, elements);
    default: fail("ERR_LIBMOE_DTYPE", std::string("collectives cannot add ") + name_of(dtype));
  }
}

}  // namespace libmoe::comm

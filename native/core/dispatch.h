#pragma once
// From the element type of a tensor, known at run time, to a template argument.
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace libmoe {

// body.template operator()<T>() for T in f32, bf16, f64.
template <class F> inline void with_float(Dtype dtype, F&& body) {
  switch (dtype) {
    case Dtype::f32: return body.template operator()<float>();
    case Dtype::bf16: return body.template operator()<bf16>();
    case Dtype::f64: return body.template operator()<double>();
    default: fail("ERR_LIBMOE_DTYPE", std::string("expected f32, bf16 or f64, got ") + name_of(dtype));
  }
}

// The same for accumulators and statistics: f32 or f64.
template <class F> inline void with_wide(Dtype dtype, F&& body) {
  if (dtype == Dtype::f64) return body.template operator()<double>();
  if (dtype == Dtype::f32) return body.template operator()<float>();
  fail("ERR_LIBMOE_DTYPE", std::string("expected f32 or f64, got ") + name_of(dtype));
}

}  // namespace libmoe

#pragma once
// What the backends' elementwise families share: from an operation, known at run time, to a template argument, and the way through two operands.
#include "ops/elementwise.h"

namespace libmoe {

template <class F> inline void with_unary(Unary f, F&& body) {
  switch (f) {
    case Unary::negate: return body.template operator()<Unary::negate>();
    case Unary::exp: return body.template operator()<Unary::exp>();
    case Unary::log: return body.template operator()<Unary::log>();
    case Unary::sqrt: return body.template operator()<Unary::sqrt>();
    case Unary::reciprocal: return body.template operator()<Unary::reciprocal>();
    case Unary::abs: return body.template operator()<Unary::abs>();
    case Unary::square: return body.template operator()<Unary::square>();
    case Unary::sigmoid: return body.template operator()<Unary::sigmoid>();
    case Unary::tanh: return body.template operator()<Unary::tanh>();
    case Unary::erf: return body.template operator()<Unary::erf>();
    case Unary::relu: return body.template operator()<Unary::relu>();
    case Unary::silu: return body.template operator()<Unary::silu>();
    case Unary::gelu_erf: return body.template operator()<Unary::gelu_erf>();
    case Unary::gelu_tanh: return body.template operator()<Unary::gelu_tanh>();
    case Unary::quick_gelu: return body.template operator()<Unary::quick_gelu>();
    case Unary::softplus: return body.template operator()<Unary::softplus>();
  }
}

template <class F> inline void with_binary(Binary f, F&& body) {
  switch (f) {
    case Binary::add: return body.template operator()<Binary::add>();
    case Binary::subtract: return body.template operator()<Binary::subtract>();
    case Binary::multiply: return body.template operator()<Binary::multiply>();
    case Binary::divide: return body.template operator()<Binary::divide>();
    case Binary::maximum: return body.template operator()<Binary::maximum>();
    case Binary::minimum: return body.template operator()<Binary::minimum>();
    case Binary::greater: return body.template operator()<Binary::greater>();
    case Binary::greater_equal: return body.template operator()<Binary::greater_equal>();
    case Binary::equal: return body.template operator()<Binary::equal>();
  }
}

// Dimensions of the output with the strides of both operands, those that both walk alike merged: most calls become one or two loops.
struct Walk {
  int rank = 0;
  int64_t sizes[kMaxRank]{}, a[kMaxRank]{}, b[kMaxRank]{};
};

inline Walk merged(const Broadcast& broadcast) {
  Walk w;
  for (int i = 0; i < broadcast.shape.rank; ++i) {
    const int64_t size = broadcast.shape.dims[i], sa = broadcast.a_strides[i], sb = broadcast.b_strides[i];
    if (size == 1) continue;
    const int last = w.rank - 1;
    if (last >= 0 && w.a[last] == sa * size && w.b[last] == sb * size) {
      w.sizes[last] *= size;
      w.a[last] = sa;
      w.b[last] = sb;
    } else {
      w.sizes[w.rank] = size;
      w.a[w.rank] = sa;
      w.b[w.rank++] = sb;
    }
  }
  return w;
}

}  // namespace libmoe

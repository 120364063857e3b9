#pragma once
#include <vector>

#include "ops/reduction.h"

namespace libmoe {

// Runs of kept and reduced axes, merged, axes of size one left out.
struct Groups {
  std::vector<int64_t> sizes;
  std::vector<bool> reduced;
};
inline Groups groups_of(const Shape& shape, uint32_t axes) {
  Groups g;
  for (int i = 0; i < shape.rank; ++i) {
    const bool r = axes >> i & 1u;
    if (shape.dims[i] == 1) continue;
    if (!g.sizes.empty() && g.reduced.back() == r) g.sizes.back() *= shape.dims[i];
    else {
      g.sizes.push_back(shape.dims[i]);
      g.reduced.push_back(r);
    }
  }
  return g;
}

}  // namespace libmoe

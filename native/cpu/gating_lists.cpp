// Experts of tokens whose number of experts differs, and values looked up by expert. Bound by memory but for the choice of experts, which is a
// partial sort of each column.
#include <atomic>
#include <limits>

#include "cpu/gating_row.h"

namespace libmoe::cpu::LIBMOE_ISA {

void expert_lists(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most);
void take(const TensorView& values, const TensorView& experts, const TensorView& out);
void take_backward(const TensorView& experts, const TensorView& dout, const TensorView& dvalues);

namespace {

// taken[t * n + e]: whether expert e takes token t, one of its `each` best among `here`.
template <class A> void choose_tokens(const A* x, int64_t n, const int32_t* here, int64_t present, int64_t each, uint8_t* taken) {
  struct Entry {
    A value;
    int32_t token;
  };
  parallel_for(n, [&](int64_t e) {
    Entry* column = scratch_of<Entry>(3, present);
    for (int64_t i = 0; i < present; ++i) column[i] = {x[here[i] * n + e], here[i]};
    if (each < present)
      std::nth_element(column, column + each, column + present,
                       [](const Entry& a, const Entry& b) { return a.value > b.value || (a.value == b.value && a.token < b.token); });
    for (int64_t i = 0; i < std::min(each, present); ++i) taken[column[i].token * n + e] = 1;
  });
}

template <class A> void lists_typed(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most) {
  const int64_t tokens = scores.shape[0], n = scores.shape[1];
  const A* x = scores.as<A>();
  const bool* counted = mask.as<bool>();
  const auto finite = [&](int64_t t) {
    bool good = true;
    for (int64_t i = 0; i < n; ++i) good &= x[t * n + i] < std::numeric_limits<A>::infinity();
    return good;
  };
  int32_t* here = scratch_of<int32_t>(1, tokens);
  int64_t present = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    if (counted && !counted[t]) continue;
    if (!finite(t)) fail("ERR_LIBMOE_NOT_FINITE", "the logits of token " + std::to_string(t) + " hold NaN or +infinity; lower the learning rate, or look for NaN in the input");
    here[present++] = int32_t(t);
  }
  uint8_t* taken = scratch_of<uint8_t>(2, tokens * n);
  if (each) {
    std::fill(taken, taken + tokens * n, uint8_t(0));
    choose_tokens(x, n, here, present, std::max<int64_t>(1, each.as<int32_t>()[0]), taken);
  }
  std::atomic<int32_t> longest{1};
  parallel_ranges(tokens, kTokenPiece, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const A* row = x + t * n;
      int32_t* list = experts.as<int32_t>() + t * n;
      int32_t have = 0;
      for (int64_t i = 0; i < n && (!counted || counted[t]); ++i) {
        if (each ? !taken[t * n + i] : !(row[i] > A(0))) continue;
        int32_t at = have++;
        for (; at > 0 && row[i] > row[list[at - 1]]; --at) list[at] = list[at - 1];
        list[at] = int32_t(i);
      }
      std::fill(list + have, list + n, -1);
      int32_t seen = longest.load();
      while (have > seen && !longest.compare_exchange_weak(seen, have)) {}
    }
  });
  most.as<int32_t>()[0] = longest.load();
}

}  // namespace

void expert_lists(const TensorView& scores, const TensorView& mask, const TensorView& each, const TensorView& experts, const TensorView& most) {
  with_wide(scores.dtype, [&]<class A>() { lists_typed<A>(scores, mask, each, experts, most); });
}

void take(const TensorView& values, const TensorView& experts, const TensorView& out) {
  const int64_t tokens = values.shape[0], n = values.shape[1], k = experts.shape[1];
  const int32_t* chosen = experts.as<int32_t>();
  for (int64_t i = 0; i < tokens * k; ++i)
    if (chosen[i] < -1 || chosen[i] >= n)
      fail("ERR_LIBMOE_ARGUMENT", "experts must be -1 or 0 to " + std::to_string(n - 1) + ", got " + std::to_string(chosen[i]) + " for token " + std::to_string(i / k));
  with_wide(values.dtype, [&]<class A>() {
    parallel_ranges(tokens, kTokenPiece, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t j = 0; j < k; ++j) {
          const int32_t e = chosen[t * k + j];
          out.as<A>()[t * k + j] = e < 0 ? A(0) : values.as<A>()[t * n + e];
        }
    });
  });
}

void take_backward(const TensorView& experts, const TensorView& dout, const TensorView& dvalues) {
  const int64_t tokens = dvalues.shape[0], n = dvalues.shape[1], k = experts.shape[1];
  const int32_t* chosen = experts.as<int32_t>();
  with_wide(dvalues.dtype, [&]<class A>() {
    parallel_ranges(tokens, kTokenPiece, [&](int64_t begin, int64_t end) {
      A* d = dvalues.as<A>();
      std::fill(d + begin * n, d + end * n, A(0));
      for (int64_t t = begin; t < end; ++t)
        for (int64_t j = 0; j < k; ++j)
          if (const int32_t e = chosen[t * k + j]; e >= 0) d[t * n + e] += dout.as<A>()[t * k + j];
    });
  });
}

}  // namespace libmoe::cpu::LIBMOE_ISA

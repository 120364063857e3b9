#pragma once
// What the forward and backward passes of attention share: how queries become columns, and which keys a column sees.
//
// A "column" is one query row: (token, query head) with the query heads of one key head next to each other. Columns are lanes of vectors, keys
// and channels are rows, so that every maximum, sum and exponential runs down a lane and no column ever meets another: the bits of a column
// depend on its own query and keys alone. Key blocks begin at fixed positions of the sequence (0, 64, 128 ...); a key that a column does not
// see adds exact zeros. So cached, batched and plain attention agree bit for bit.
#include <algorithm>

#include "cpu/simd/block_product.h"
#include "ops/attention.h"

namespace libmoe::cpu::LIBMOE_ISA {

inline constexpr int64_t kKeyBlock = 64;
template <class A> inline constexpr int64_t kColumns = kTileVectors * Vec<A>::lanes;

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Elements from one row to the next in a buffer of rows of `width`: whole vectors and whole tiles, and off the multiples of 512 bytes that
// would put all rows into a few sets of the cache.
template <class A> inline int64_t row_stride(int64_t width) {
  const int64_t unit = std::max(Vec<A>::lanes, 4), padded = round_up(width, unit);
  return padded * int64_t(sizeof(A)) % 512 ? padded : padded + unit;
}

// One sequence of a call: its queries are the last positions of its keys.
struct Sequence {
  int64_t index, first_row, queries, keys;
};

struct HeadShape {
  int64_t query_heads, heads, group, width, value_width;
  HeadShape(const TensorView& q, int64_t key_heads, int64_t value)
      : query_heads(q.shape[1]), heads(key_heads), group(q.shape[1] / key_heads), width(q.shape[2]), value_width(value) {}
  int64_t query_head(int64_t h, int64_t c) const { return h * group + c % group; }
  // Row of [tokens, query heads] that column c of key head h stands for.
  int64_t row_of(const Sequence& s, int64_t h, int64_t c) const { return (s.first_row + c / group) * query_heads + query_head(h, c); }
};

// The keys that up to kColumns columns see: positions [lower, upper] per column, and the range that covers them all.
template <class A> struct Sight {
  using Int = typename Vec<A>::Int;
  alignas(64) Int upper[kColumns<A>], lower[kColumns<A>];
  int64_t first, last, full_first, full_last;  // some column sees [first, last], every one sees [full_first, full_last]

  Sight(const Sequence& s, const HeadShape& shape, const AttentionOptions& o, int64_t column, int64_t count) {
    for (int64_t i = 0; i < kColumns<A>; ++i) {
      const int64_t position = s.keys - s.queries + (column + std::min(i, count - 1)) / shape.group;
      const int64_t high = o.causal ? position : s.keys - 1, low = o.window ? std::max<int64_t>(0, position - o.window + 1) : 0;
      upper[i] = i < count ? Int(high) : Int(-1);
      lower[i] = Int(low);
      if (i == 0) {
        first = low;
        full_last = high;
      }
      last = high;  // both bounds grow with the position
      full_first = low;
    }
  }
  bool whole(int64_t begin, int64_t end) const { return begin >= full_first && end <= full_last + 1; }
  typename Vec<A>::RawInt visible(int64_t key, int64_t lane) const {
    using RawInt = typename Vec<A>::RawInt;
    RawInt high, low;
    std::memcpy(&high, upper + lane, sizeof high);
    std::memcpy(&low, lower + lane, sizeof low);
    const RawInt at = RawInt{} + Int(key);
    return (at <= high) & (at >= low);
  }
};

// Rows of one head of a packed tensor [tokens, heads, width], counted from the first token of a sequence.
template <class T> struct PackedRows {
  const T* base;
  int64_t stride;
  PackedRows(const TensorView& t, const Sequence& s, int64_t head) : base(t.as<T>() + (s.first_row * t.shape[1] + head) * t.shape[2]), stride(t.shape[1] * t.shape[2]) {}
  const T* at(int64_t position) const { return base + position * stride; }
};

// Copies positions [begin, begin + count) of a source into rows of A, zeros beyond `count` up to `rows` and beyond `width` up to the stride.
template <class A, class Source> inline void load_rows(const Source& source, int64_t begin, int64_t count, int64_t rows, int64_t width, A* to, int64_t stride) {
  constexpr int L = Vec<A>::lanes;
  for (int64_t r = 0; r < count; ++r, to += stride) {
    const auto* from = source.at(begin + r);
    for_vectors<A>(width, [&](int64_t i, int n) { store(to + i, load_count(from + i, n)); });
    std::fill(to + round_up(width, L), to + stride, A(0));
  }
  std::fill(to, to + (rows - count) * stride, A(0));
}

// Hands out pieces of one block of scratch memory, each on its own cache lines. Without a block it only counts.
template <class A> class Pieces {
 public:
  explicit Pieces(A* block = nullptr) : block_(block) {}
  A* take(int64_t count) {
    A* piece = block_ ? block_ + taken_ : nullptr;
    taken_ += round_up(count, 64 / int64_t(sizeof(A)));
    return piece;
  }
  int64_t taken() const { return taken_; }

 private:
  A* block_;
  int64_t taken_ = 0;
};

}  // namespace libmoe::cpu::LIBMOE_ISA

// Forward attention. An item is (sequence, key head, block of columns): 2 * (width + value width) FLOP per (query, visible key) rounded up to
// blocks of 64 keys, against one read of the keys and values per block of columns, so it is bound by arithmetic from about 16 columns on.
// Decoding has few columns and is bound by reading the cache.
#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/simd/attention_sequences.h"
#include "cpu/simd/math.h"

namespace libmoe::cpu::LIBMOE_ISA {

// attention_backward.cpp
void attention_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
                        const TensorView& log_sum, const TensorView& d_out, const TensorView& dq, const TensorView& dk, const TensorView& dv,
                        const TensorView& d_sinks, bool add_sinks, const AttentionOptions& options);

namespace {

// Rows of one head in the pages of one sequence.
template <class T> struct PagedRows {
  const T* base;
  const int32_t* pages;
  int64_t page_size, stride;
  PagedRows(const TensorView& pool, const int32_t* table, int64_t head)
      : base(pool.as<T>() + head * pool.shape[3]), pages(table), page_size(pool.shape[1]), stride(pool.shape[2] * pool.shape[3]) {}
  const T* at(int64_t position) const { return base + (pages[position / page_size] * page_size + position % page_size) * stride; }
};

// Buffers of an item.
template <class A> struct Workspace {
  A *queries, *scores, *sums, *rows, *top, *total, *factor;
  int64_t stride, value_stride, value_rows;
  Workspace(const HeadShape& shape, Pieces<A> pieces)
      : stride(row_stride<A>(shape.width)), value_stride(row_stride<A>(shape.value_width)), value_rows(round_up(shape.value_width, 4)) {
    constexpr int64_t W = kColumns<A>;
    queries = pieces.take(shape.width * W);                       // [width, W], scaled
    scores = pieces.take(kKeyBlock * W);                          // [64, W]: scores, then their exponentials
    sums = pieces.take(value_rows * W);                           // [value width, W]
    rows = pieces.take(kKeyBlock * std::max(stride, value_stride));  // a block of keys, then of values
    top = pieces.take(W);
    total = pieces.take(W);
    factor = pieces.take(W);
    elements = pieces.taken();
  }
  int64_t elements;
};

// Replaces a block of scores by exp(score - new maximum), adds them up and says by what the sums so far shrink.
template <int N, class A> void exponentiate(A* scores, int64_t keys, const Workspace<A>& w, const Sight<A>& sight, int64_t begin, bool whole) {
  using V = Vec<A>;
  constexpr int L = V::lanes;
  const V lowest(-A(__builtin_inf()));
  for (int n = 0; n < N; ++n) {
    A* column = scores + n * L;
    const V before = load(w.top + n * L);
    V top = before;
    if (whole) {
      for (int64_t key = 0; key < keys; ++key) top = max(load(column + key * N * L), top);
    } else {
      for (int64_t key = 0; key < keys; ++key) {
        const V x = select<A>(sight.visible(begin + key, n * L), load(column + key * N * L), lowest);
        store(column + key * N * L, x);
        top = max(x, top);
      }
    }
    // A column that has seen no key yet: nothing to shift by, and exp(-inf) is 0 as it must be.
    const V shift = select<A>(top.v == lowest.v, V::zero(), top);
    const V factor = exp(before - shift);
    V total = load(w.total + n * L) * factor;
    for (int64_t key = 0; key < keys; ++key) {
      const V e = exp(load(column + key * N * L) - shift);
      store(column + key * N * L, e);
      total += e;
    }
    store(w.top + n * L, top);
    store(w.total + n * L, total);
    store(w.factor + n * L, factor);
  }
}

template <int N, class T, class A, class Source>
void attend(const Source& keys, const Source& values, const T* q, const T* sinks, T* out, A* log_sum, const HeadShape& shape, const Sequence& s, int64_t head, int64_t column,
            int64_t count, const Workspace<A>& w, const AttentionOptions& options) {
  using V = Vec<A>;
  constexpr int L = V::lanes;
  constexpr int64_t W = N * L;
  const Sight<A> sight(s, shape, options, column, count);
  const A scale = A(options.scale), nothing = -A(__builtin_inf());
  std::fill(w.queries, w.queries + shape.width * W, A(0));
  for (int64_t c = 0; c < count; ++c) {
    const T* row = q + shape.row_of(s, head, column + c) * shape.width;
    for (int64_t d = 0; d < shape.width; ++d) w.queries[d * W + c] = A(row[d]) * scale;
  }
  std::fill(w.sums, w.sums + w.value_rows * W, A(0));
  std::fill(w.top, w.top + W, nothing);
  std::fill(w.total, w.total + W, A(0));
  if (sinks)  // as if it had been the first key
    for (int64_t c = 0; c < count; ++c) {
      w.top[c] = A(sinks[shape.query_head(head, column + c)]);
      w.total[c] = A(1);
    }

  for (int64_t begin = sight.first / kKeyBlock * kKeyBlock; begin <= sight.last; begin += kKeyBlock) {
    const int64_t seen = std::min(kKeyBlock, sight.last + 1 - begin), rows = round_up(seen, 4);
    // Positions before the window are zeros and never read: their pages may be gone, and 0 times what lies there may be NaN.
    const int64_t skipped = std::max<int64_t>(0, sight.first - begin);
    const auto load_block = [&](const Source& source, int64_t width, int64_t stride) {
      std::fill(w.rows, w.rows + skipped * stride, A(0));
      load_rows(source, begin + skipped, seen - skipped, rows - skipped, width, w.rows + skipped * stride, stride);
    };
    load_block(keys, shape.width, w.stride);
    product_columns<Begin::zero, N>(rows, Left<A>{w.rows, w.stride, 1}, w.queries, W, w.scores, W, shape.width);
    exponentiate<N>(w.scores, rows, w, sight, begin, sight.whole(begin, begin + rows));
    load_block(values, shape.value_width, w.value_stride);
    product_columns<Begin::at_scaled_c, N>(w.value_rows, Left<A>{w.rows, 1, w.value_stride}, w.scores, W, w.sums, W, seen, w.factor);
  }

  for (int n = 0; n < N; ++n) {
    const V total = load(w.total + n * L), share = V(A(1)) / total;
    // + 0 turns a -0 into 0: whether a sum became -0 or 0 may depend on zeros that were added.
    for (int64_t d = 0; d < shape.value_width; ++d) store(w.sums + d * W + n * L, fma(load(w.sums + d * W + n * L), share, V::zero()));
    store(w.total + n * L, load(w.top + n * L) + log(total));
  }
  for (int64_t c = 0; c < count; ++c) {
    const int64_t row = shape.row_of(s, head, column + c);
    T* to = out + row * shape.value_width;
    for (int64_t d = 0; d < shape.value_width; ++d) to[d] = T(w.sums[d * W + c]);
    if (log_sum) log_sum[row] = w.total[c];
  }
}

struct Item {
  int64_t sequence, head, column;
};

template <class T, class MakeSource>
void run(const std::vector<Sequence>& sequences, const HeadShape& shape, const TensorView& q, const TensorView& sinks, const TensorView& out, const TensorView& log_sum,
         const AttentionOptions& options, MakeSource&& source) {
  using A = Accumulator<T>;
  constexpr int L = Vec<A>::lanes;
  std::vector<Item> items;
  for (size_t i = 0; i < sequences.size(); ++i)
    for (int64_t h = 0; h < shape.heads; ++h)
      for (int64_t c = 0; c < sequences[i].queries * shape.group; c += kColumns<A>) items.push_back({int64_t(i), h, c});
  const int64_t elements = Workspace<A>(shape, Pieces<A>()).elements;
  parallel_for(int64_t(items.size()), [&](int64_t i) {
    const Item& item = items[items.size() - 1 - i];  // the later blocks of a causal sequence are the longer ones: first
    const Sequence& s = sequences[item.sequence];
    const Workspace<A> w(shape, Pieces<A>(scratch_of<A>(0, elements)));
    const int64_t count = std::min(kColumns<A>, s.queries * shape.group - item.column);
    const auto [keys, values] = source(s, item.head);
    const auto go = [&]<int N>() {
      attend<N>(keys, values, q.as<T>(), sinks.as<T>(), out.as<T>(), log_sum.as<A>(), shape, s, item.head, item.column, count, w, options);
    };
    if (count <= L) return go.template operator()<1>();
    if (kTileVectors == 2 || count <= 2 * L) return go.template operator()<2>();
    go.template operator()<kTileVectors>();
  });
}

void attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
               const TensorView& log_sum, const AttentionOptions& options) {
  const std::vector<Sequence> sequences = sequences_of(offsets, q.shape[0]);
  const HeadShape shape(q, k.shape[1], v.shape[2]);
  with_float(q.dtype, [&]<class T>() {
    run<T>(sequences, shape, q, sinks, out, log_sum, options, [&](const Sequence& s, int64_t head) { return std::pair(PackedRows<T>(k, s, head), PackedRows<T>(v, s, head)); });
  });
}

[[noreturn]] void reject(const std::string& message) { fail("ERR_LIBMOE_ARGUMENT", message); }

// Sequences with their key counts; `first` gives the first position whose page must exist.
template <class F>
std::vector<Sequence> cached_sequences(const TensorView& table, const TensorView& offsets, const TensorView& lengths, int64_t rows, int64_t pages, int64_t page_size,
                                       F&& first) {
  std::vector<Sequence> sequences = sequences_of(offsets, rows);
  for (Sequence& s : sequences) {
    s.keys = lengths.as<int32_t>()[s.index];
    const std::string name = "attention: sequence " + std::to_string(s.index);
    if (s.keys < s.queries) reject(name + " has " + std::to_string(s.queries) + " new tokens but a length of " + std::to_string(s.keys) + "; the length counts them too");
    if (s.keys > table.shape[1] * page_size)
      reject(name + " has length " + std::to_string(s.keys) + ", but its row of the block table reaches " + std::to_string(table.shape[1] * page_size));
    const int32_t* row = table.as<int32_t>() + s.index * table.shape[1];
    for (int64_t p = first(s) / page_size; p * page_size < s.keys; ++p)
      if (row[p] < 0 || row[p] >= pages)
        reject(name + " needs block " + std::to_string(p) + " of its row of the block table, which says " + std::to_string(row[p]) + "; the pool has " +
               std::to_string(pages) + " blocks");
  }
  return sequences;
}

void attention_cached(const TensorView& q, const TensorView& keys, const TensorView& values, const TensorView& table, const TensorView& offsets,
                      const TensorView& lengths, const TensorView& sinks, const TensorView& out, const AttentionOptions& options) {
  const std::vector<Sequence> sequences = cached_sequences(table, offsets, lengths, q.shape[0], keys.shape[0], keys.shape[1], [&](const Sequence& s) {
    return options.window ? std::max<int64_t>(0, s.keys - s.queries - options.window + 1) : 0;
  });
  const HeadShape shape(q, keys.shape[2], values.shape[3]);
  with_float(q.dtype, [&]<class T>() {
    run<T>(sequences, shape, q, sinks, out, {}, options, [&](const Sequence& s, int64_t head) {
      const int32_t* pages = table.as<int32_t>() + s.index * table.shape[1];
      return std::pair(PagedRows<T>(keys, pages, head), PagedRows<T>(values, pages, head));
    });
  });
}

void cache_write(const TensorView& pool, const TensorView& rows, const TensorView& table, const TensorView& offsets, const TensorView& lengths) {
  const int64_t page_size = pool.shape[1];
  const std::vector<Sequence> sequences =
      cached_sequences(table, offsets, lengths, rows.shape[0], pool.shape[0], page_size, [](const Sequence& s) { return s.keys - s.queries; });
  std::vector<int64_t> writer(size_t(pool.shape[0]), -1);
  for (const Sequence& s : sequences)
    for (int64_t p = (s.keys - s.queries) / page_size; p * page_size < s.keys; ++p) {
      const int32_t page = table.as<int32_t>()[s.index * table.shape[1] + p];
      if (writer[page] >= 0)
        reject("cacheWrite: block " + std::to_string(page) + " would be written for sequence " + std::to_string(writer[page]) + " and for " + std::to_string(s.index) +
               "; give a fork its own copy with cacheCopyBlock first");
      writer[page] = s.index;
    }
  const size_t bytes = size_t(pool.shape[2] * pool.shape[3]) * size_of(pool.dtype);
  parallel_for(int64_t(sequences.size()), [&](int64_t i) {
    const Sequence& s = sequences[i];
    for (int64_t t = 0; t < s.queries; ++t) {
      const int64_t position = s.keys - s.queries + t;
      const int64_t page = table.as<int32_t>()[s.index * table.shape[1] + position / page_size];
      std::memcpy(pool.as<char>() + size_t(page * page_size + position % page_size) * bytes, rows.as<char>() + size_t(s.first_row + t) * bytes, bytes);
    }
  });
}

void cache_copy_block(const TensorView& pool, int64_t from, int64_t to) {
  if (from < 0 || to < 0 || from >= pool.shape[0] || to >= pool.shape[0])
    reject("cacheCopyBlock: blocks " + std::to_string(from) + " and " + std::to_string(to) + " of a pool of " + std::to_string(pool.shape[0]));
  if (from == to) return;
  const size_t bytes = size_t(pool.shape[1] * pool.shape[2] * pool.shape[3]) * size_of(pool.dtype);
  std::memcpy(pool.as<char>() + size_t(to) * bytes, pool.as<char>() + size_t(from) * bytes, bytes);
}

}  // namespace

extern const AttentionOps attention_ops;
const AttentionOps attention_ops = {attention, attention_backward, attention_cached, cache_write, cache_copy_block};

}  // namespace libmoe::cpu::LIBMOE_ISA

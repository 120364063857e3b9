#pragma once
// Attention over packed sequences, and over a paged cache of keys and values. Blocked with a running maximum and sum (Milakov and Gimelshein,
// 2018; Dao et al., "FlashAttention", 2022): no matrix of scores is ever stored.
//
// Query head h reads key and value head h / (query heads / key heads). Scores are scale * q.k; a query at position p of its sequence sees the
// keys at positions <= p when causal, else all; with window w > 0 only those at positions > p - w.
// With sinks, one logit per query head, each query also sees a key of that score whose value is 0: its weight only makes the others smaller (Xiao et
// al., arXiv 2309.17453, as gpt-oss learns them, arXiv 2508.10925).
// f32, bf16 or f64, one dtype per call; scores, softmax and sums run in f32 (f64 for f64).
// i32 tables are checked: an offset, length or page out of range is ERR_LIBMOE_ARGUMENT before anything is read or written.
#include "core/tensor.h"

namespace libmoe {

struct AttentionOptions {
  bool causal = true;
  int64_t window = 0;  // 0: unlimited
  double scale = 1;
};

struct AttentionOps {
  // q [tokens, query heads, width], k [tokens, heads, width], v [tokens, heads, value width], out [tokens, query heads, value width];
  // offsets i32 [sequences + 1]: sequence s owns the tokens from offsets[s] to offsets[s + 1], starting at 0, ending at tokens; it may be empty.
  // sinks [query heads], may be absent.
  // log_sum [tokens, query heads] f32 (f64 for f64): log of the sum of exp(score), the sink's included, for the backward pass; may be absent.
  void (*attention)(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
                    const TensorView& log_sum, const AttentionOptions& options);

  // Gradients from what the forward pass gave and got: dq, dk and dv are written; d_sinks [query heads] f32 (f64 for f64), absent when it is not
  // wanted, is added to when add_sinks says so and written otherwise.
  void (*attention_backward)(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
                             const TensorView& log_sum, const TensorView& d_out, const TensorView& dq, const TensorView& dk, const TensorView& dv,
                             const TensorView& d_sinks, bool add_sinks, const AttentionOptions& options);

  // Causal attention of new queries over everything cached. keys [pages, page size, heads, width], values [pages, page size, heads, value width];
  // table i32 [sequences, pages per sequence]: the key at position p of sequence s lies in page table[s][p / page size], row p % page size;
  // offsets i32 [sequences + 1] split the queries; lengths i32 [sequences] count the keys of a sequence, its new ones included: its queries are its
  // last positions. Pages that no query sees need no valid entry. Every row has the bits that `attention` gives it.
  void (*attention_cached)(const TensorView& q, const TensorView& keys, const TensorView& values, const TensorView& table, const TensorView& offsets,
                           const TensorView& lengths, const TensorView& sinks, const TensorView& out, const AttentionOptions& options);

  // Writes rows [tokens, heads, width] into the pages of their positions, the last ones of each sequence. pool [pages, page size, heads, width].
  // Two sequences must not write to one page (copy it first).
  void (*cache_write)(const TensorView& pool, const TensorView& rows, const TensorView& table, const TensorView& offsets, const TensorView& lengths);

  // Page `to` becomes a copy of page `from`.
  void (*cache_copy_block)(const TensorView& pool, int64_t from, int64_t to);
};

}  // namespace libmoe

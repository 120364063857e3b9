#pragma once
// What the kernels of attention share: how sequences become tiles without the host knowing their lengths, and which keys a query sees.
//
// A "column" is one query row: (token, query head), the query heads that read one key head next to each other, so that they share every key that is loaded.
// Tiles of columns begin at multiples of their size from the first column of a sequence, tiles of keys at the positions 0, 64, 128 ... of it. A key that a
// column does not see adds exact zeros to it and changes no maximum, so the bits of a column depend on its own query and keys alone: packed, cached, alone
// or in a batch.
#include <string>

#include "ops/attention.h"

#include "cuda/core/convert.h"
#include "cuda/core/fault.h"

namespace libmoe::cuda {

constexpr int kKeyTile = 64;

struct AttentionCall {
  int64_t tokens = 0;
  int sequences = 0, query_heads = 0, heads = 0, group = 0, width = 0, value_width = 0, window = 0;
  bool causal = true;
  double scale = 1;
  const int32_t* offsets = nullptr;
  // Over a paged cache; else null, and the keys lie as the queries do.
  const int32_t *lengths = nullptr, *table = nullptr;
  int64_t table_row = 0, pages = 0;
  int page_size = 1;
  FaultSlot bad_offset, bad_length, bad_page;
};

// One sequence: its queries are the last positions of its keys.
struct AttentionSequence {
  int index = 0, queries = 0, keys = 0;
  int64_t first_row = 0;
};

struct AttentionTile {
  AttentionSequence sequence;
  int begin = 0;  // first column or key, counted in its sequence
  int head = 0;   // of the keys
};

// Sequence s gets the slots from floor(offsets[s] * rows / size) + s on: at least as many as it has tiles of `size`, whatever the lengths, so the grid needs
// to know the number of tokens and of sequences alone. Slots left over do nothing.
inline __host__ __device__ int64_t slots_before(int64_t offset, int64_t sequence, int rows, int size) { return offset * rows / size + sequence; }
inline unsigned attention_grid(const AttentionCall& call, int rows, int size) {
  const int64_t blocks = slots_before(call.tokens, call.sequences, rows, size) * call.heads;
  if (blocks > 0x7fffffff || call.tokens * call.group > 1 << 30)
    fail("ERR_LIBMOE_UNSUPPORTED",
         "attention: expected at most 2^30 tokens times query heads per key head, got " + std::to_string(call.tokens) + " tokens; split the batch");
  return unsigned(blocks > 1 ? blocks : 1);  // one block at least, which looks at the offsets
}

__device__ inline void check_offsets(const int32_t* offsets, int sequences, int64_t tokens, const FaultSlot& fault) {
  for (int i = int(threadIdx.x); i <= sequences; i += int(blockDim.x)) {
    const int64_t at = offsets[i], before = i ? offsets[i - 1] : 0;
    if (at < before || at > tokens || (i == 0 && at != 0) || (i == sequences && at != tokens)) fault.report(i);
  }
}

// The last sequence whose slots begin at or before `slot`.
__device__ inline int sequence_at(const int32_t* offsets, int sequences, int64_t slot, int rows, int size) {
  int low = 0, high = sequences;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (slots_before(offsets[middle], middle, rows, size) <= slot) low = middle;
    else high = middle;
  }
  return low;
}

// The tile of this block, of `rows` per token, or false. kLastFirst: the later tiles of causal queries see more keys, they begin first.
template <bool kLastFirst> __device__ inline bool find_tile(const AttentionCall& call, int rows, int size, AttentionTile& tile) {
  if (blockIdx.x == 0) check_offsets(call.offsets, call.sequences, call.tokens, call.bad_offset);
  const int64_t slots = slots_before(call.tokens, call.sequences, rows, size), nth = int64_t(blockIdx.x) / call.heads;
  if (nth >= slots || call.sequences == 0) return false;
  const int64_t slot = kLastFirst ? slots - 1 - nth : nth;
  const int s = sequence_at(call.offsets, call.sequences, slot, rows, size);
  const int64_t begin = call.offsets[s], end = call.offsets[s + 1];
  if (begin < 0 || end <= begin || end > call.tokens) return false;  // empty, or reported above
  tile.head = int(blockIdx.x % unsigned(call.heads));
  const int64_t first = (slot - slots_before(begin, s, rows, size)) * size;
  if (first < 0 || first >= (end - begin) * rows) return false;
  tile.begin = int(first);
  tile.sequence = {s, int(end - begin), int(end - begin), begin};
  if (!call.lengths) return true;
  const int64_t length = call.lengths[s];
  if (length < end - begin || length > call.table_row * call.page_size) {
    if (threadIdx.x == 0) call.bad_length.report(s);
    return false;
  }
  tile.sequence.keys = int(length);
  return true;
}

// Row of [tokens, query heads] of a column.
__device__ inline int64_t column_row(const AttentionCall& call, const AttentionTile& tile, int column) {
  return (tile.sequence.first_row + column / call.group) * call.query_heads + tile.head * call.group + column % call.group;
}

// Row of [.., heads] of the key at a position, or -1 where the block table says nonsense.
__device__ inline int64_t key_row(const AttentionCall& call, const AttentionTile& tile, int position) {
  int64_t row = tile.sequence.first_row + position;
  if (call.table) {
    const int64_t entry = tile.sequence.index * call.table_row + position / call.page_size, page = call.table[entry];
    if (page < 0 || page >= call.pages) {
      call.bad_page.report(entry);
      return -1;
    }
    row = page * call.page_size + position % call.page_size;
  }
  return row * call.heads + tile.head;
}

// Keys from `first` to `last`.
struct Sight {
  int first, last;
  __device__ bool sees(int key) const { return key >= first && key <= last; }
};
__device__ inline int position_of(const AttentionCall& call, const AttentionSequence& s, int column) { return s.keys - s.queries + column / call.group; }
__device__ inline Sight sight_from(const AttentionCall& call, const AttentionSequence& s, int position) {
  const int low = call.window ? position - call.window + 1 : 0;
  return {low > 0 ? low : 0, call.causal ? position : s.keys - 1};
}
__device__ inline Sight sight_of(const AttentionCall& call, const AttentionSequence& s, int column) { return sight_from(call, s, position_of(call, s, column)); }
// All that some of the columns [begin, end) sees: both bounds grow with the column.
__device__ inline Sight sight_of(const AttentionCall& call, const AttentionSequence& s, int begin, int end) {
  return {sight_of(call, s, begin).first, sight_of(call, s, end - 1).last};
}
// The columns [first, last] that see some of the keys [begin, end).
struct Columns {
  int first, last;
};
__device__ inline Columns columns_of(const AttentionCall& call, const AttentionSequence& s, int begin, int end) {
  const int past = call.window && call.window < s.queries - end + 1 ? end - 1 + call.window : s.queries;
  return {(call.causal ? begin : 0) * call.group, past * call.group - 1};
}

// The tensor-core kernels for bf16 (cuda/sm80/): widths up to 192. The choice depends on dtype and widths alone, so that all operations make the same.
constexpr int kTensorCoreWidth = 192;
inline bool takes_tensor_cores(Dtype dtype, const AttentionCall& call) {
  return dtype == Dtype::bf16 && call.width <= kTensorCoreWidth && call.value_width <= kTensorCoreWidth;
}

struct AttentionTensors {
  const void *q = nullptr, *k = nullptr, *v = nullptr, *sinks = nullptr;
  void *out = nullptr, *log_sum = nullptr;  // log_sum may be null
};
struct AttentionGradients {
  const void *q = nullptr, *k = nullptr, *v = nullptr, *d_out = nullptr, *log_sum = nullptr, *delta = nullptr;  // delta [tokens, query heads]: sum of out * d_out
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

namespace sm80 {
void attention_forward(const DeviceState& state, const AttentionCall& call, const AttentionTensors& t);
// False, and nothing done, where a block of this device has too little shared memory.
bool attention_backward(const DeviceState& state, const AttentionCall& call, const AttentionGradients& t);
}  // namespace sm80

}  // namespace libmoe::cuda

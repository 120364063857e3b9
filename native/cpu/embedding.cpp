// Forward: bound by memory, one read and one write per element. Backward: the positions are grouped by id with a counting sort, then each id's row is
// summed by one owner in ascending position, hence no atomics and the same bits for any number of threads; rows that nothing names cost one store.
#include "ops/embedding.h"

#include <algorithm>

#include "core/dispatch.h"
#include "cpu/row_index.h"
#include "cpu/simd/vec.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

void forward(const TensorView& weight, const TensorView& ids, const TensorView& y) {
  check_rows(ids.as<int32_t>(), ids.elements(), 0, weight.shape[0], "token id");
  gather_row_bytes(weight.as<char>(), ids.as<int32_t>(), ids.elements(), size_t(weight.shape[1]) * size_of(weight.dtype), y.as<char>());
}

void backward(const TensorView& dy, const TensorView& ids, const TensorView& dweight, bool accumulate) {
  const int64_t vocabulary = dweight.shape[0], width = dweight.shape[1];
  check_rows(ids.as<int32_t>(), ids.elements(), 0, vocabulary, "token id");
  if (width == 0) return;
  if (!accumulate)
    parallel_ranges(int64_t(dweight.bytes()), int64_t(1) << 20, [&](int64_t begin, int64_t end) { std::memset(dweight.as<char>() + begin, 0, size_t(end - begin)); });
  constexpr int64_t kColumns = 256;  // a frequent id is shared by several threads
  const RowGroups groups = group_rows(ids.as<int32_t>(), ids.elements(), vocabulary);
  const int64_t blocks = (width + kColumns - 1) / kColumns;
  with_float(dy.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    parallel_ranges(int64_t(groups.rows.size()) * blocks, std::max<int64_t>(1, 4096 / std::min(width, kColumns)), [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const size_t k = size_t(item / blocks);
        const int64_t column = item % blocks * kColumns, columns = std::min(kColumns, width - column);
        A* out = dweight.as<A>() + groups.rows[k] * width + column;
        const T* in = dy.as<T>() + column;
        for_vectors<A>(columns, [&](int64_t i, int count) {
          Vec<A> sum = Vec<A>::zero();
          for (int64_t p = groups.begin[k]; p < groups.begin[k + 1]; ++p) sum += load_count(in + groups.positions[size_t(p)] * width + i, count);
          store_count(out + i, accumulate ? load_count(out + i, count) + sum : sum, count);
        });
      }
    });
  });
}

}  // namespace

extern const EmbeddingOps embedding_ops;
const EmbeddingOps embedding_ops = {forward, backward};

}  // namespace libmoe::cpu::LIBMOE_ISA

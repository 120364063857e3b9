#pragma once
// Row indices: gathering by them, and their inverse (which positions name a row), for shape, embedding and random.
#include <cstdint>

#include "cuda/core/fault.h"
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

// y[i, :] = x[index[i], :], rows of `row_bytes` bytes. An index outside [0, rows) is reported and its row of y left alone.
void gather_row_bytes(DeviceState& state, const void* x, const int32_t* index, int64_t n, int64_t rows, int64_t row_bytes, void* y, const char* what);

// The positions 0 .. n-1 in the order of their keys, those of one key ascending: a stable radix sort. A key outside [0, limit) is reported and sorts last, as `limit`.
class SortedPositions {
 public:
  SortedPositions(const DeviceState& state, const int32_t* keys, int64_t n, int64_t limit, FaultSlot fault = {});
  const uint32_t* keys() const { return keys_; }
  const int32_t* positions() const { return positions_; }

 private:
  Scratch scratch_;
  uint32_t* keys_ = nullptr;
  int32_t* positions_ = nullptr;
};

}  // namespace libmoe::cuda

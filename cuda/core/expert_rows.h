#pragma once
// What the products of an expert layer need of its plan, made on the device: nothing of it ever comes to the host.
#include "cuda/core/runtime.h"

namespace libmoe::cuda {

// Neighbouring rows of one expert, at most as many as the list's height.
struct alignas(16) RowTile {
  int32_t expert, first, rows, unused;
};

// Device memory throughout; `slots` and `tile_bound` are what buffers are sized by. W: f32, or f64 for f64.
template <class W> struct ExpertRows {
  int experts = 0;
  int64_t slots = 0;                  // T * k; at most so many rows are kept
  const int32_t* offsets = nullptr;   // [experts + 1], ascending from 0
  const int32_t* order = nullptr;     // [experts], those with most rows first
  const int32_t* slot = nullptr;      // [slots] of each kept row; -1 where the plan is broken
  const int32_t* token = nullptr;     // [slots] row of x of each kept row
  const W* weight = nullptr;          // [slots] gate weight of each kept row
  int height = 0;                     // of the tiles: kRowTileHeights
  int64_t tile_bound = 0;             // at most so many tiles
  const int32_t* tile_count = nullptr;
  const RowTile* tiles = nullptr;     // [*tile_count], experts ascending, rows ascending
};

// Heights that tile lists come in; every generation's kernels take all of them.
constexpr int kRowTileHeights[] = {16, 64, 128};

struct GroupedPlan {
  const int32_t *rows, *offsets, *inverse;
  int64_t tokens, top_k;
  int experts;
};

// Two launches; throws nothing, a plan that contradicts itself is reported as a fault and read only where it is sound. Owns its memory.
template <class W> class ExpertLayout {
 public:
  ExpertLayout(DeviceState& state, const GroupedPlan& plan, const W* weights, int height);
  const ExpertRows<W>& rows() const { return rows_; }

 private:
  Scratch memory_;
  ExpertRows<W> rows_;
};

}  // namespace libmoe::cuda

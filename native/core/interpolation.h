#pragma once
// How images change their size along one axis: every output is a weighted sum of a stretch of neighbouring inputs. The rules are those of
// torch.nn.functional.interpolate with align_corners false and without antialiasing.
#include <cstdint>
#include <vector>

namespace libmoe {

enum class Interpolation : uint8_t { bilinear, bicubic, area };

// A matrix whose rows are zero outside one stretch each: row r holds `count[r]` weights for the columns from `first[r]` on.
template <class A> struct Bands {
  int64_t rows = 0, columns = 0, width = 0;  // width: of the longest stretch
  std::vector<int32_t> first, count;         // [rows]
  std::vector<A> weights;                    // [rows, width], zero behind a row's own
};

// What takes an axis of `in` elements to `out`, both positive: positions and weights are computed in A, as PyTorch does. A neighbour beyond the border is the
// border itself.
template <class A> Bands<A> interpolation_bands(Interpolation mode, int64_t in, int64_t out);
// The gradient's way back.
template <class A> Bands<A> transposed(const Bands<A>& bands);

extern template Bands<float> interpolation_bands(Interpolation, int64_t, int64_t);
extern template Bands<double> interpolation_bands(Interpolation, int64_t, int64_t);
extern template Bands<float> transposed(const Bands<float>&);
extern template Bands<double> transposed(const Bands<double>&);

}  // namespace libmoe

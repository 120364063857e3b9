#include "core/interpolation.h"

#include <algorithm>
#include <cmath>

namespace libmoe {
namespace {

// Weights as they are found; those of one row may name a column twice.
template <class A> class Rows {
 public:
  Rows(int64_t rows, int64_t columns) : rows_(rows), columns_(columns), begin_(size_t(rows) + 1) {}
  void add(int64_t column, A weight) { entries_.push_back({int32_t(std::clamp<int64_t>(column, 0, columns_ - 1)), weight}); }
  void end_row(int64_t row) { begin_[size_t(row) + 1] = entries_.size(); }

  // Weights of zero are left out at both ends, so that a NaN reaches those outputs alone that it has a share in.
  Bands<A> bands() const {
    Bands<A> b;
    b.rows = rows_;
    b.columns = columns_;
    b.first.assign(size_t(rows_), 0);
    b.count.assign(size_t(rows_), 0);
    for (size_t r = 0; r < size_t(rows_); ++r) {
      int32_t low = int32_t(columns_), high = -1;
      for (size_t e = begin_[r]; e < begin_[r + 1]; ++e) {
        if (entries_[e].weight == A(0)) continue;
        low = std::min(low, entries_[e].column);
        high = std::max(high, entries_[e].column);
      }
      if (high < low) continue;
      b.first[r] = low;
      b.count[r] = high - low + 1;
      b.width = std::max<int64_t>(b.width, b.count[r]);
    }
    b.weights.assign(size_t(rows_ * b.width), A(0));
    for (size_t r = 0; r < size_t(rows_); ++r)
      for (size_t e = begin_[r]; e < begin_[r + 1]; ++e)
        if (entries_[e].weight != A(0)) b.weights[r * size_t(b.width) + size_t(entries_[e].column - b.first[r])] += entries_[e].weight;
    return b;
  }

 private:
  struct Entry {
    int32_t column;
    A weight;
  };
  int64_t rows_, columns_;
  std::vector<size_t> begin_;
  std::vector<Entry> entries_;
};

// Keys' cubic convolution with a = -0.75, at a distance up to 1 and from 1 to 2. Products are fused with the sums that take them, here as for positions: PyTorch's
// builds for CPUs and GPUs are compiled so, and at 672 pixels a position that is rounded twice moves a weight by 5e-6.
template <class A> A near_cubic(A x) { return std::fma(std::fma(A(1.25), x, A(-2.25)) * x, x, A(1)); }
template <class A> A far_cubic(A x) { return std::fma(std::fma(std::fma(A(-0.75), x, A(3.75)), x, A(-6)), x, A(3)); }

}  // namespace

template <class A> Bands<A> interpolation_bands(Interpolation mode, int64_t in, int64_t out) {
  Rows<A> rows(out, in);
  const A scale = A(in) / A(out);
  for (int64_t o = 0; o < out; ++o) {
    if (mode == Interpolation::area) {
      const int64_t begin = o * in / out, end = ((o + 1) * in + out - 1) / out;
      for (int64_t i = begin; i < end; ++i) rows.add(i, A(1) / A(end - begin));
    } else {
      A at = std::fma(scale, A(o) + A(0.5), A(-0.5));
      if (mode == Interpolation::bilinear) at = std::max(at, A(0));
      const int64_t i = std::min(int64_t(std::floor(at)), in - 1);
      const A t = std::clamp(at - A(i), A(0), A(1));
      if (mode == Interpolation::bilinear) {
        rows.add(i, A(1) - t);
        rows.add(i + 1, t);
      } else {
        rows.add(i - 1, far_cubic(t + A(1)));
        rows.add(i, near_cubic(t));
        rows.add(i + 1, near_cubic(A(1) - t));
        rows.add(i + 2, far_cubic(A(2) - t));
      }
    }
    rows.end_row(o);
  }
  return rows.bands();
}

template <class A> Bands<A> transposed(const Bands<A>& bands) {
  std::vector<std::vector<std::pair<int64_t, A>>> columns(size_t(bands.columns));
  for (int64_t r = 0; r < bands.rows; ++r)
    for (int64_t k = 0; k < bands.count[size_t(r)]; ++k)
      columns[size_t(bands.first[size_t(r)] + k)].push_back({r, bands.weights[size_t(r * bands.width + k)]});
  Rows<A> rows(bands.columns, bands.rows);
  for (int64_t c = 0; c < bands.columns; ++c) {
    for (const auto& [row, weight] : columns[size_t(c)]) rows.add(row, weight);
    rows.end_row(c);
  }
  return rows.bands();
}

template Bands<float> interpolation_bands(Interpolation, int64_t, int64_t);
template Bands<double> interpolation_bands(Interpolation, int64_t, int64_t);
template Bands<float> transposed(const Bands<float>&);
template Bands<double> transposed(const Bands<double>&);

}  // namespace libmoe

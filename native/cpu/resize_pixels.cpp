// 8-bit pixels in another size, with the arithmetic of Pillow's Image.resize: weights are found in double, made whole numbers of 2^-22 and summed in 32 bits, and what
// the first pass leaves is rounded to 8 bits before the second. Bound by multiply-adds: rows × width' × taps along rows, height' × taps × width' along columns.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "ops/image.h"

namespace libmoe::cpu::LIBMOE_ISA {

void resize_pixels(const PixelResize& resize);

namespace {

constexpr int kFraction = 22;  // a byte and two bits of overshoot stay below 32

double sinc(double x) { return x == 0 ? 1 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x); }

double filter_support(PixelFilter filter) {
  switch (filter) {
    case PixelFilter::box: return 0.5;
    case PixelFilter::bilinear: return 1;
    case PixelFilter::bicubic: return 2;
    default: return 3;
  }
}

double filter_at(PixelFilter filter, double x) {
  switch (filter) {
    case PixelFilter::box: return x > -0.5 && x <= 0.5 ? 1 : 0;
    case PixelFilter::bilinear: return std::max(0.0, 1 - std::abs(x));
    case PixelFilter::bicubic: {  // Keys, a = -0.5
      constexpr double a = -0.5;
      x = std::abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    }
    default: return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
  }
}

// The taps of every output along one axis.
struct Taps {
  int64_t width = 0;                  // of the table's rows
  std::vector<int64_t> first, count;  // [out]
  std::vector<int32_t> weights;       // [out, width]
  const int32_t* of(int64_t o) const { return weights.data() + o * width; }
};

Taps taps_of(PixelFilter filter, int64_t in, int64_t out) {
  const double scale = double(in) / double(out), stretch = std::max(scale, 1.0), support = filter_support(filter) * stretch, step = 1 / stretch;
  Taps taps;
  taps.width = int64_t(std::ceil(support)) * 2 + 1;
  taps.first.resize(size_t(out));
  taps.count.resize(size_t(out));
  taps.weights.assign(size_t(out * taps.width), 0);
  std::vector<double> exact(static_cast<size_t>(taps.width));
  for (int64_t o = 0; o < out; ++o) {
    const double centre = (double(o) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, int64_t(centre - support + 0.5)), end = std::min(in, int64_t(centre + support + 0.5)), count = end - first;
    double sum = 0;
    for (int64_t k = 0; k < count; ++k) sum += exact[size_t(k)] = filter_at(filter, (double(k + first) - centre + 0.5) * step);
    for (int64_t k = 0; k < count; ++k) {
      const double w = (sum != 0 ? exact[size_t(k)] / sum : exact[size_t(k)]) * (1 << kFraction);
      taps.weights[size_t(o * taps.width + k)] = int32_t(w < 0 ? w - 0.5 : w + 0.5);
    }
    taps.first[size_t(o)] = first;
    taps.count[size_t(o)] = count;
  }
  return taps;
}

inline uint8_t rounded(int32_t sum) { return uint8_t(std::clamp(sum >> kFraction, 0, 255)); }
constexpr int32_t kHalf = 1 << (kFraction - 1);

#if defined(__AVX2__)
// Three or four channels side by side in one register; of three it reads a byte behind the last pixel.
template <int C> void along_row_together(const uint8_t* from, const Taps& taps, int64_t out, uint8_t* to) {
  for (int64_t o = 0; o < out; ++o) {
    const uint8_t* pixel = from + taps.first[size_t(o)] * C;
    const int32_t *weights = taps.of(o), *end = weights + taps.count[size_t(o)];
    __m128i sum = _mm_set1_epi32(kHalf);
    for (; weights < end; ++weights, pixel += C) {
      int32_t bytes;
      std::memcpy(&bytes, pixel, 4);
      sum = _mm_add_epi32(sum, _mm_mullo_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)), _mm_set1_epi32(*weights)));
    }
    // Clamped to a byte by saturation, twice.
    const __m128i shorts = _mm_packs_epi32(_mm_srai_epi32(sum, kFraction), sum);
    const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(shorts, shorts));
    std::memcpy(to + o * C, &bytes, C);
  }
}
#endif

template <int C> void along_row(const uint8_t* from, const Taps& taps, int64_t out, uint8_t* to) {
  for (int64_t o = 0; o < out; ++o) {
    const uint8_t* pixel = from + taps.first[size_t(o)] * C;
    const int32_t* weights = taps.of(o);
    int32_t sum[C];
    for (int c = 0; c < C; ++c) sum[c] = kHalf;
    for (int64_t k = 0; k < taps.count[size_t(o)]; ++k)
      for (int c = 0; c < C; ++c) sum[c] += int32_t(pixel[k * C + c]) * weights[k];
    for (int c = 0; c < C; ++c) to[o * C + c] = rounded(sum[c]);
  }
}

// A row of `size` bytes from `count` rows of them.
void across_rows(const uint8_t* from, int64_t size, int64_t count, const int32_t* weights, uint8_t* to) {
  constexpr int64_t kPiece = 512;
  int32_t sum[kPiece];
  for (int64_t begin = 0; begin < size; begin += kPiece) {
    const int64_t n = std::min(kPiece, size - begin);
    std::fill(sum, sum + n, kHalf);
    for (int64_t k = 0; k < count; ++k) {
      const uint8_t* row = from + k * size + begin;
      const int32_t w = weights[k];
      for (int64_t i = 0; i < n; ++i) sum[i] += int32_t(row[i]) * w;
    }
    for (int64_t i = 0; i < n; ++i) to[begin + i] = rounded(sum[i]);
  }
}

// Positions are added up as Pillow adds them, so that what rounds differently there does so here.
std::vector<int64_t> nearest(int64_t in, int64_t out) {
  const double step = double(in) / double(out);
  std::vector<int64_t> at(static_cast<size_t>(out));
  double position = step * 0.5;
  for (int64_t& i : at) {
    i = std::min(in - 1, int64_t(position));
    position += step;
  }
  return at;
}

void pick(const PixelResize& r) {
  const std::vector<int64_t> columns = nearest(r.width, r.to_width), rows = nearest(r.height, r.to_height);
  uint8_t* to = r.to;
  for (const int64_t row : rows)
    for (const int64_t column : columns) {
      std::memcpy(to, r.from + (row * r.width + column) * r.channels, size_t(r.channels));
      to += r.channels;
    }
}

}  // namespace

void resize_pixels(const PixelResize& r) {
  const bool across = r.to_width != r.width, down = r.to_height != r.height;
  if (!across && !down) {
    std::memcpy(r.to, r.from, size_t(r.width * r.height * r.channels));
    return;
  }
  if (r.filter == PixelFilter::nearest) return pick(r);
  const Taps columns = across ? taps_of(r.filter, r.width, r.to_width) : Taps{}, rows = down ? taps_of(r.filter, r.height, r.to_height) : Taps{};
  // Of the input's rows only those that some output needs.
  const int64_t begin = down ? rows.first.front() : 0, end = down ? rows.first.back() + rows.count.back() : r.height, line = r.to_width * r.channels;
  const uint8_t* narrow = r.from + begin * r.width * r.channels;
  std::vector<uint8_t> between;
  if (across) {
    if (down) between.resize(size_t((end - begin) * line));
    uint8_t* to = down ? between.data() : r.to;
#if defined(__AVX2__)
    const auto three = along_row_together<3>, four = along_row_together<4>;
#else
    const auto three = along_row<3>, four = along_row<4>;
#endif
    const auto row_pass = r.channels == 1 ? along_row<1> : r.channels == 2 ? along_row<2> : r.channels == 3 ? three : four;
    const int64_t bytes = r.width * r.channels;
    for (int64_t row = begin; row + 1 < end; ++row) row_pass(r.from + row * bytes, columns, r.to_width, to + (row - begin) * line);
    std::vector<uint8_t> last(size_t(bytes) + 1);  // with room behind it
    std::memcpy(last.data(), r.from + (end - 1) * bytes, size_t(bytes));
    row_pass(last.data(), columns, r.to_width, to + (end - 1 - begin) * line);
    narrow = to;
  }
  if (down)
    for (int64_t o = 0; o < r.to_height; ++o)
      across_rows(narrow + (rows.first[size_t(o)] - begin) * line, line, rows.count[size_t(o)], rows.of(o), r.to + o * line);
}

}  // namespace libmoe::cpu::LIBMOE_ISA

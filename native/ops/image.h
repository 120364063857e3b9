#pragma once
// Images as channel-first planes, and rows of 8-bit pixels in host memory.
#include "core/interpolation.h"
#include "core/tensor.h"

namespace libmoe {

// The filters of resize_pixels, in the order of ts/native/image.ts.
enum class PixelFilter : uint8_t { nearest, box, bilinear, bicubic, lanczos };

struct PixelResize {
  const uint8_t* from = nullptr;  // [height, width, channels], interleaved
  uint8_t* to = nullptr;          // [to_height, to_width, channels]
  int64_t width = 0, height = 0, to_width = 0, to_height = 0;
  int channels = 3;  // 1 to 4, each for itself
  PixelFilter filter = PixelFilter::bicubic;
};

struct ImageOps {
  // y [n, c, H, W] = x [n, c, h, w] in another size, f32, bf16 or f64 on both sides; sums in f32 (f64), rounded once. All sizes are positive unless n or c is 0.
  void (*interpolate)(const TensorView& x, const TensorView& y, Interpolation mode);
  // dx [n, c, h, w] from dy [n, c, H, W]: each element gathers its share of dy, ascending, so that no two threads add to one place.
  void (*interpolate_backward)(const TensorView& dy, const TensorView& dx, Interpolation mode);
  // Pillow's Image.resize, bit for bit: filters widened by the reduction (antialiasing), weights in fixed point, first along rows and rounded to 8 bits, then along
  // columns. On the calling thread alone; host memory, hence null except in the CPU's table.
  void (*resize_pixels)(const PixelResize& resize);
};

}  // namespace libmoe

#include "ops/image.h"

#include "binding/families.h"

namespace libmoe::binding {
namespace {

const ImageOps& ops(const Call& call) { return call.family(&Backend::image); }

// Two tensors [n, c, height, width] of one dtype, every plane of at least one element.
void check(const Call& call, const TensorView& a, const TensorView& b) {
  call.same_dtype("x", a, "y", b);
  for (const TensorView& t : {a, b})
    call.require(t.shape[2] > 0 && t.shape[3] > 0, "ERR_LIBMOE_SHAPE", "expected planes of at least one element, got " + t.shape.text());
}

Interpolation mode_of(Call& call) { return static_cast<Interpolation>(call.integer("mode", 0, 2)); }

// interpolate(x, y, mode)
void interpolate(Call& call) {
  Dim n("n"), c("c"), h("h"), w("w"), height("height"), width("width");
  const TensorView x = call.tensor("x", kFloats, {&n, &c, &h, &w}), y = call.tensor("y", kFloats, {&n, &c, &height, &width});
  check(call, x, y);
  ops(call).interpolate(x, y, mode_of(call));
}

// interpolateBackward(dy, dx, mode)
void interpolate_backward(Call& call) {
  Dim n("n"), c("c"), h("h"), w("w"), height("height"), width("width");
  const TensorView dy = call.tensor("dy", kFloats, {&n, &c, &height, &width}), dx = call.tensor("dx", kFloats, {&n, &c, &h, &w});
  check(call, dy, dx);
  ops(call).interpolate_backward(dy, dx, mode_of(call));
}

// resizePixels(from, width, height, channels, to, toWidth, toHeight, filter)
void resize_pixels(Call& call) {
  constexpr int64_t kSide = int64_t(1) << 24;
  const Bytes from = call.bytes("pixels");
  PixelResize r;
  r.width = call.integer("width", 1, kSide);
  r.height = call.integer("height", 1, kSide);
  r.channels = int(call.integer("channels", 1, 4));
  const Bytes to = call.bytes("to");
  r.to_width = call.integer("to.width", 1, kSide);
  r.to_height = call.integer("to.height", 1, kSide);
  r.filter = static_cast<PixelFilter>(call.integer("filter", 0, 4));
  const auto expect = [&](const char* name, const Bytes& bytes, int64_t width, int64_t height) {
    const int64_t size = width * height * r.channels;
    call.require(bytes.size == size_t(size), "ERR_LIBMOE_SHAPE",
                 std::string(name) + ": " + std::to_string(width) + " x " + std::to_string(height) + " pixels of " + std::to_string(r.channels) + " bytes are " +
                     std::to_string(size) + " bytes, got " + std::to_string(bytes.size));
  };
  expect("pixels", from, r.width, r.height);
  expect("to", to, r.to_width, r.to_height);
  r.from = reinterpret_cast<const uint8_t*>(from.data);
  r.to = reinterpret_cast<uint8_t*>(to.data);
  cpu_backend().image->resize_pixels(r);
}

}  // namespace

void bind_image(Napi::Object exports) {
  expose(exports, "interpolate", interpolate);
  expose(exports, "interpolateBackward", interpolate_backward);
  expose(exports, "resizePixels", resize_pixels);
}

}  // namespace libmoe::binding

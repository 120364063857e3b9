#include "ops/shape.h"

#include "binding/families.h"
#include "core/file_mapping.h"

namespace libmoe::binding {
namespace {

const ShapeOps& ops(const Call& call) { return call.family(&Backend::shape); }

// The farthest element that a walk reaches must lie inside the tensor.
void check_inside(const Call& call, const char* name, const TensorView& t, const Shape& shape, const std::array<int64_t, kMaxRank>& strides, int64_t offset) {
  double last = double(offset);
  for (int i = 0; i < shape.rank; ++i) last += double(shape.dims[i] - 1) * double(strides[i]);
  call.require(offset >= 0 && last < double(t.elements()), "ERR_LIBMOE_SHAPE",
               std::string("the copied box ") + shape.text() + " does not lie inside " + name + " " + t.shape.text());
}

// copyStrided(x, y, shape, fromStrides, fromOffset, toStrides, toOffset)
void copy_strided(Call& call) {
  const TensorView x = call.tensor("x", kAny), y = call.tensor("y", kAny);
  call.same_dtype("x", x, "y", y);
  StridedCopy box;
  const auto dims = call.integers("shape"), from = call.integers("fromStrides");
  box.from_offset = call.integer("fromOffset", 0, int64_t(1) << 50);
  const auto to = call.integers("toStrides");
  box.to_offset = call.integer("toOffset", 0, int64_t(1) << 50);
  call.require(dims.size() <= size_t(kMaxRank) && from.size() == dims.size() && to.size() == dims.size(), "ERR_LIBMOE_SHAPE",
               "a copied box has at most 8 axes and one stride for each on both sides");
  box.shape.rank = int(dims.size());
  for (int i = 0; i < box.shape.rank; ++i) {
    call.require(dims[size_t(i)] >= 0 && from[size_t(i)] >= 0 && to[size_t(i)] >= 0, "ERR_LIBMOE_SHAPE", "sizes and strides of a copied box must not be negative");
    box.shape.dims[i] = dims[size_t(i)];
    box.from[i] = from[size_t(i)];
    box.to[i] = to[size_t(i)];
  }
  if (box.shape.elements() == 0) return;
  check_inside(call, "x", x, box.shape, box.from, box.from_offset);
  check_inside(call, "y", y, box.shape, box.to, box.to_offset);
  ops(call).copy_strided(x, y, box);
}

// readFile(y, path, size, offset, dtype, strides): y from the elements of a file of `size` bytes, the first at byte `offset`
void read_file(Call& call) {
  const TensorView y = call.tensor("y", kAny);
  const std::string path = call.string("path");
  const int64_t size = call.integer("size", 0, int64_t(1) << 52), offset = call.integer("offset", 0, size);
  HostBox x;
  x.dtype = static_cast<Dtype>(call.integer("dtype", 0, 7));
  const auto strides = call.integers("strides");
  call.require(strides.size() == size_t(y.shape.rank), "ERR_LIBMOE_SHAPE", "one stride for each axis of y " + y.shape.text());
  if (y.elements() == 0) return;
  double span = 1;
  for (int i = 0; i < y.shape.rank; ++i) {
    call.require(strides[size_t(i)] >= 0, "ERR_LIBMOE_SHAPE", "strides must not be negative");
    x.strides[i] = strides[size_t(i)];
    span += double(y.shape.dims[i] - 1) * double(strides[size_t(i)]);
  }
  call.require(span * double(size_of(x.dtype)) <= double(size - offset), "ERR_LIBMOE_CHECKPOINT", path + " ends before the elements that are to be read");
  const FileMapping file(path, size, offset, int64_t(span) * int64_t(size_of(x.dtype)));
  x.data = file.data();
  ops(call).read_host(x, y);
}

// gatherRows(x, index, y)
void gather_rows(Call& call) {
  Dim rows("rows"), width("width"), n("n");
  const TensorView x = call.tensor("x", kAny, {&rows, &width}), index = call.tensor("index", kI32, {&n}), y = call.tensor("y", kAny, {&n, &width});
  call.same_dtype("x", x, "y", y);
  ops(call).gather_rows(x, index, y);
}

// scatterAddRows(x, index, y)
void scatter_add_rows(Call& call) {
  Dim rows("rows"), width("width"), n("n");
  const TensorView x = call.tensor("x", kFloats, {&n, &width}), index = call.tensor("index", kI32, {&n}), y = call.tensor("y", kFloats, {&rows, &width});
  call.same_dtype("x", x, "y", y);
  ops(call).scatter_add_rows(x, index, y);
}

}  // namespace

void bind_shape(Napi::Object exports) {
  expose(exports, "copyStrided", copy_strided);
  expose(exports, "readFile", read_file);
  expose(exports, "gatherRows", gather_rows);
  expose(exports, "scatterAddRows", scatter_add_rows);
}

}  // namespace libmoe::binding

#pragma once
// One JavaScript call into the engine: arguments are read in order, converted and checked as they are read, so that an operation never sees
// a tensor of the wrong type, shape or device. Dimensions are unified: the first tensor that uses a Dim binds it, later ones must agree.
#include <napi.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/error.h"
#include "core/tensor.h"

namespace libmoe::binding {

// A named dimension, unknown until a tensor binds it.
struct Dim {
  const char* name;
  int64_t value = -1;
  explicit Dim(const char* n) : name(n) {}
  Dim(const char* n, int64_t v) : name(n), value(v) {}
  operator int64_t() const { return value; }
};
using Dims = std::initializer_list<Dim*>;

// Sets of accepted element types.
using Types = unsigned;
constexpr Types type_bit(Dtype t) { return 1u << static_cast<int>(t); }
inline constexpr Types kF32 = type_bit(Dtype::f32), kF64 = type_bit(Dtype::f64), kBf16 = type_bit(Dtype::bf16), kF16 = type_bit(Dtype::f16), kI32 = type_bit(Dtype::i32),
                       kI64 = type_bit(Dtype::i64), kU8 = type_bit(Dtype::u8), kBool = type_bit(Dtype::boolean);
inline constexpr Types kFloats = kF32 | kF64 | kBf16;      // what arithmetic runs on
inline constexpr Types kWide = kF32 | kF64;                // accumulators and statistics
inline constexpr Types kAny = 0xff;

// The memory of a typed array.
struct Bytes {
  char* data;
  size_t size;
};

class Call {
 public:
  explicit Call(const Napi::CallbackInfo& info, const char* op) : info_(info), op_(op) {}

  // The next argument as a tensor handle. Every tensor of a call lives on one device.
  TensorView tensor(const char* name, Types types, Dims dims);
  TensorView tensor(const char* name, Types types);                  // any shape
  TensorView matrix(const char* name, Types types, Dim& rows, Dim& width);  // [..., width] seen as [rows, width]
  TensorView optional_matrix(const char* name, Types types, Dim& rows, Dim& width);
  TensorView optional(const char* name, Types types, Dims dims);     // null / undefined gives an absent view

  int64_t integer(const char* name, int64_t low, int64_t high);
  double number(const char* name);
  bool boolean(const char* name);
  std::string string(const char* name);
  Bytes bytes(const char* name);
  std::vector<Bytes> byte_arrays(const char* name);
  std::vector<int64_t> integers(const char* name);
  std::vector<double> numbers(const char* name);
  std::vector<TensorView> tensors(const char* name, Types types);

  // The owner of the tensor that was read as argument `position`, for work that goes on after the call.
  std::shared_ptr<Storage> storage(size_t position) const;

  void same_dtype(const char* a_name, const TensorView& a, const char* b_name, const TensorView& b) const;
  void require(bool condition, const char* code, const std::string& message) const;
  [[noreturn]] void reject(const char* code, const std::string& message) const;

  // The backend of the tensors read so far, and its family table; throws when the backend has none.
  const Backend& backend() const;
  template <class Ops> const Ops& family(const Ops* Backend::*member) const {
    const Ops* ops = backend().*member;
    if (!ops) reject("ERR_LIBMOE_UNSUPPORTED", std::string("not available on the ") + backend().name + " backend");
    return *ops;
  }
  Napi::Env env() const { return info_.Env(); }
  // The operation and the shapes of the tensors read so far, for errors of a device.
  std::string text() const;

 private:
  Napi::Value next();
  TensorView view_of(const Napi::Value& value, const char* name, Types types);
  const Napi::CallbackInfo& info_;
  const char* op_;
  size_t position_ = 0;
  std::vector<Shape> shapes_;
  bool have_device_ = false;
  Device device_;
};

// Registers `name` on the exports; the body's exceptions become JavaScript errors with a `code`.
using Body = Napi::Value (*)(Call&);
void expose(Napi::Object exports, const char* name, Body body);
// For bodies without a result.
using VoidBody = void (*)(Call&);
void expose(Napi::Object exports, const char* name, VoidBody body);

}  // namespace libmoe::binding

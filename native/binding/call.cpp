#include "binding/call.h"

#include <cmath>
#include <string_view>

#include "binding/handles.h"

namespace libmoe::binding {
namespace {

std::string names_of(Types types) {
  std::string s;
  for (int i = 0; i < 8; ++i)
    if (types >> i & 1) s += (s.empty() ? "" : " or ") + std::string(name_of(static_cast<Dtype>(i)));
  return s;
}

void throw_coded(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error e = Napi::Error::New(env, std::string(code) + ": " + message);
  e.Set("code", Napi::String::New(env, code));
  throw e;
}

template <class F> Napi::Value guarded(const Napi::CallbackInfo& info, F&& body) {
  try {
    return body();
  } catch (const Error& e) {
    throw_coded(info.Env(), e.code(), e.what());
  } catch (const std::bad_alloc&) {
    throw_coded(info.Env(), "ERR_LIBMOE_OUT_OF_MEMORY", "the host has no memory left for this operation; use a smaller batch");
  } catch (const Napi::Error&) {
    throw;  // JavaScript's own
  } catch (const std::exception& e) {
    throw_coded(info.Env(), "ERR_LIBMOE_INTERNAL", std::string("unexpected failure: ") + e.what());
  }
  return info.Env().Undefined();
}

struct Registration {
  const char* name;
  Body body;
  VoidBody void_body;
};

Napi::Value invoke(const Napi::CallbackInfo& info) {
  const auto* r = static_cast<const Registration*>(info.Data());
  return guarded(info, [&]() -> Napi::Value {
    Call call(info, r->name);
    try {
      if (r->body) return r->body(call);
      r->void_body(call);
    } catch (const Error& e) {
      if (std::string_view(e.code()) == "ERR_LIBMOE_CUDA") fail(e.code(), call.text() + ": " + e.what());
      throw;
    }
    return info.Env().Undefined();
  });
}

void add(Napi::Object exports, const char* name, Body body, VoidBody void_body) {
  // One small record per function and environment, for the life of the process.
  exports.Set(name, Napi::Function::New(exports.Env(), invoke, name, new Registration{name, body, void_body}));
}

}  // namespace

void expose(Napi::Object exports, const char* name, Body body) { add(exports, name, body, nullptr); }
void expose(Napi::Object exports, const char* name, VoidBody body) { add(exports, name, nullptr, body); }

void Call::reject(const char* code, const std::string& message) const { fail(code, std::string(op_) + ": " + message); }
void Call::require(bool condition, const char* code, const std::string& message) const {
  if (!condition) reject(code, message);
}

Napi::Value Call::next() {
  const size_t i = position_++;
  return i < info_.Length() ? info_[i] : info_.Env().Undefined();
}

TensorView Call::view_of(const Napi::Value& value, const char* name, Types types) {
  if (!value.IsNumber()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be a tensor");
  const Entry* e = handles_of(info_.Env()).find(value.As<Napi::Number>().DoubleValue());
  if (!e) reject("ERR_LIBMOE_DISPOSED", std::string(name) + " was disposed; keep it alive with keep() or create it outside the scope");
  if (!(type_bit(e->dtype) & types))
    reject("ERR_LIBMOE_DTYPE", std::string(name) + " must be " + names_of(types) + ", got " + name_of(e->dtype));
  const Device device = e->storage->device;
  if (have_device_ && !(device == device_)) reject("ERR_LIBMOE_DEVICE", std::string(name) + " is on another device than the tensors before it");
  have_device_ = true;
  device_ = device;
  TensorView v;
  v.data = static_cast<char*>(e->storage->data) + e->offset;
  v.dtype = e->dtype;
  v.device = device;
  v.shape = e->shape;
  if (device.kind != DeviceKind::cpu) shapes_.push_back(e->shape);
  return v;
}

TensorView Call::tensor(const char* name, Types types) { return view_of(next(), name, types); }

TensorView Call::tensor(const char* name, Types types, Dims dims) {
  const TensorView v = tensor(name, types);
  bool fits = v.shape.rank == int(dims.size());
  int axis = 0;
  if (fits)
    for (Dim* d : dims) {
      const int64_t size = v.shape[axis++];
      if (d->value < 0) d->value = size;
      else if (d->value != size) fits = false;
    }
  if (!fits) {
    std::string expected = "[";
    for (Dim* d : dims) {
      if (expected.size() > 1) expected += ", ";
      expected += d->name;
      if (d->value >= 0) expected += '=' + std::to_string(d->value);
    }
    reject("ERR_LIBMOE_SHAPE", std::string(name) + " must be " + expected + "], got " + v.shape.text());
  }
  return v;
}

TensorView Call::matrix(const char* name, Types types, Dim& rows, Dim& width) {
  TensorView v = tensor(name, types);
  if (v.shape.rank == 0) reject("ERR_LIBMOE_SHAPE", std::string(name) + " must be [..., " + width.name + "], got a scalar");
  const int64_t last = v.shape[-1];
  int64_t others = 1;
  for (int i = 0; i + 1 < v.shape.rank; ++i) others *= v.shape[i];
  if (rows.value < 0) rows.value = others;
  if (width.value < 0) width.value = last;
  if (rows.value != others || width.value != last)
    reject("ERR_LIBMOE_SHAPE", std::string(name) + " must be [..., " + width.name + "=" + std::to_string(width.value) + "] with " + std::to_string(rows.value) + " rows, got " +
                                   v.shape.text());
  v.shape = Shape{2, {others, last}};
  return v;
}

TensorView Call::optional_matrix(const char* name, Types types, Dim& rows, Dim& width) {
  const Napi::Value value = position_ < info_.Length() ? info_[position_] : info_.Env().Undefined();
  if (value.IsNull() || value.IsUndefined()) {
    ++position_;
    return {};
  }
  return matrix(name, types, rows, width);
}

TensorView Call::optional(const char* name, Types types, Dims dims) {
  const Napi::Value value = position_ < info_.Length() ? info_[position_] : info_.Env().Undefined();
  if (value.IsNull() || value.IsUndefined()) {
    ++position_;
    return {};
  }
  return tensor(name, types, dims);
}

int64_t Call::integer(const char* name, int64_t low, int64_t high) {
  const Napi::Value value = next();
  const double x = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(x == std::floor(x)) || x < double(low) || x > double(high))
    reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be an integer from " + std::to_string(low) + " to " + std::to_string(high) + ", got " +
                                      std::string(value.ToString()));
  return int64_t(x);
}

double Call::number(const char* name) {
  const Napi::Value value = next();
  if (!value.IsNumber()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be a number");
  return value.As<Napi::Number>().DoubleValue();
}

bool Call::boolean(const char* name) {
  const Napi::Value value = next();
  if (!value.IsBoolean()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be true or false");
  return value.As<Napi::Boolean>().Value();
}

std::string Call::string(const char* name) {
  const Napi::Value value = next();
  if (!value.IsString()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

Bytes Call::bytes(const char* name) {
  const Napi::Value value = next();
  if (!value.IsTypedArray()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be a typed array");
  const Napi::TypedArray array = value.As<Napi::TypedArray>();
  return {static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset(), array.ByteLength()};
}

std::vector<Bytes> Call::byte_arrays(const char* name) {
  const Napi::Value value = next();
  if (!value.IsArray()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be an array of typed arrays");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<Bytes> out;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsTypedArray()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be an array of typed arrays");
    const Napi::TypedArray typed = item.As<Napi::TypedArray>();
    out.push_back({static_cast<char*>(typed.ArrayBuffer().Data()) + typed.ByteOffset(), typed.ByteLength()});
  }
  return out;
}

std::vector<double> Call::numbers(const char* name) {
  const Napi::Value value = next();
  if (!value.IsArray()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be an array of numbers");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<double> out(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsNumber()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be an array of numbers");
    out[i] = item.As<Napi::Number>().DoubleValue();
  }
  return out;
}

std::vector<int64_t> Call::integers(const char* name) {
  std::vector<int64_t> out;
  for (double x : numbers(name)) {
    if (x != std::floor(x) || std::fabs(x) > 9007199254740992.0) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be an array of integers");
    out.push_back(int64_t(x));
  }
  return out;
}

std::vector<TensorView> Call::tensors(const char* name, Types types) {
  const Napi::Value value = next();
  if (!value.IsArray()) reject("ERR_LIBMOE_ARGUMENT", std::string(name) + " must be an array of tensors");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<TensorView> out;
  out.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) out.push_back(view_of(array.Get(i), name, types));
  return out;
}

std::shared_ptr<Storage> Call::storage(size_t position) const {
  return handles_of(info_.Env()).find(info_[position].As<Napi::Number>().DoubleValue())->storage;
}

void Call::same_dtype(const char* a_name, const TensorView& a, const char* b_name, const TensorView& b) const {
  if (a && b && a.dtype != b.dtype)
    reject("ERR_LIBMOE_DTYPE", std::string(b_name) + " must have the dtype of " + a_name + " (" + name_of(a.dtype) + "), got " + name_of(b.dtype));
}

std::string Call::text() const {
  std::string s = std::string(op_) + '(';
  for (const Shape& shape : shapes_) s += (s.back() == '(' ? "" : ", ") + shape.text();
  return s + ')';
}

const Backend& Call::backend() const { return backend_of(device_); }

}  // namespace libmoe::binding

// Handles, memory and host transfer: everything about tensors that is not an operation.
#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "binding/families.h"
#include "binding/handles.h"
#include "core/cuda.h"
#include "core/memory_pool.h"
#include "core/thread_pool.h"

namespace libmoe::binding {
namespace {

Shape shape_from(const Call& call, const std::vector<int64_t>& dims) {
  call.require(dims.size() <= size_t(kMaxRank), "ERR_LIBMOE_SHAPE", "a tensor has at most 8 dimensions, got " + std::to_string(dims.size()));
  Shape s;
  s.rank = int(dims.size());
  double total = 1;
  for (int i = 0; i < s.rank; ++i) {
    call.require(dims[i] >= 0, "ERR_LIBMOE_SHAPE", "dimensions must be non-negative, got " + std::to_string(dims[i]));
    s.dims[i] = dims[i];
    total *= double(dims[i]);
  }
  call.require(total < 1e15, "ERR_LIBMOE_SHAPE", "the tensor would have more than 1e15 elements");
  return s;
}

Device device_from(Call& call) {
  Device d;
  d.kind = static_cast<DeviceKind>(call.integer("device kind", 0, 1));
  d.index = int(call.integer("device index", 0, 15));
  return d;
}

const Entry& entry(Call& call, double handle) {
  const Entry* e = handles_of(call.env()).find(handle);
  if (!e) call.reject("ERR_LIBMOE_DISPOSED", "the tensor was disposed; keep it alive with keep() or create it outside the scope");
  return *e;
}

// Of all devices.
int64_t live_bytes() {
  int64_t all = memory_counters({}).bytes.load(std::memory_order_relaxed);
  for (int i = 0; i < 16; ++i) all += memory_counters({DeviceKind::cuda, i}).bytes.load(std::memory_order_relaxed);
  return all;
}

// V8 knows a tensor as a few hundred bytes and would let forgotten ones pile up; what it is told of their storage, on every device, makes it collect. It collects for
// every 64 MB it hears of (at once for some hundreds), and a training step makes and frees gigabytes. So it is told when there is an eighth more than it ever heard, and of
// less only when a collection has found something or trimMemory() was called: memory that comes and goes below its peak costs nothing, a leak is looked for before it
// takes more than the peak and an eighth. All threads' tensors count in every thread: who holds them cannot be told from the storage.
void tell_collector(Napi::Env env, bool of_less) {
  constexpr int64_t kLeast = int64_t(64) << 20;
  int64_t& told = handles_of(env).told;
  const int64_t now = live_bytes();
  if (!of_less && now < told + std::max(kLeast, told / 8)) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, now - told);
  told = now;
}

// empty(shape, dtype, deviceKind, deviceIndex) -> handle
Napi::Value empty(Call& call) {
  const Shape shape = shape_from(call, call.integers("shape"));
  const Dtype dtype = static_cast<Dtype>(call.integer("dtype", 0, 7));
  const Device device = device_from(call);
  const size_t bytes = size_t(shape.elements()) * size_of(dtype);
  auto storage = std::make_shared<Storage>(backend_of(device), device, bytes);
  tell_collector(call.env(), false);
  return Napi::Number::New(call.env(), handles_of(call.env()).add(std::move(storage), 0, dtype, shape));
}

// view(handle, shape, elementOffset) -> handle of the same storage
Napi::Value view(Call& call) {
  const double handle = call.number("tensor");
  const Entry source = entry(call, handle);
  const Shape shape = shape_from(call, call.integers("shape"));
  const int64_t offset = call.integer("offset", 0, int64_t(1) << 50);
  call.require(offset + shape.elements() <= source.shape.elements(), "ERR_LIBMOE_SHAPE",
               "a view of shape " + shape.text() + " at offset " + std::to_string(offset) + " does not fit into " + source.shape.text());
  return Napi::Number::New(call.env(), handles_of(call.env()).add(source.storage, source.offset + size_t(offset) * size_of(source.dtype), source.dtype, shape));
}

void release(Call& call) { handles_of(call.env()).remove(call.number("tensor")); }

// collected(handle): as release, of a tensor that V8 found to be garbage
void collected(Call& call) {
  release(call);
  tell_collector(call.env(), true);
}

// Reads the handle and the typed array of a host transfer, which must have the bytes of the tensor.
template <class F> void transfer(Call& call, F&& body) {
  const Entry& e = entry(call, call.number("tensor"));
  const Bytes host = call.bytes("data");
  const size_t size = size_t(e.shape.elements()) * size_of(e.dtype);
  call.require(host.size == size, "ERR_LIBMOE_SHAPE", "the tensor holds " + std::to_string(size) + " bytes, the array " + std::to_string(host.size));
  body(e.storage->backend, e.storage->device, static_cast<char*>(e.storage->data) + e.offset, host);
}

// upload(handle, typedArray): raw bytes of the tensor's dtype
void upload(Call& call) {
  transfer(call, [](const Backend& backend, Device device, char* data, Bytes host) { backend.upload(device, data, host.data, host.size); });
}

// download(handle, typedArray)
void download(Call& call) {
  transfer(call, [](const Backend& backend, Device device, char* data, Bytes host) { backend.download(device, host.data, data, host.size); });
}

// downloadAll(handles, typedArrays): waits for the device once
void download_all(Call& call) {
  const std::vector<double> handles = call.numbers("tensors");
  const std::vector<Bytes> hosts = call.byte_arrays("data");
  call.require(handles.size() == hosts.size(), "ERR_LIBMOE_ARGUMENT", "downloadAll takes one array for each tensor");
  std::vector<HostCopy> list;
  const Storage* first = nullptr;
  for (size_t i = 0; i < handles.size(); ++i) {
    const Entry& e = entry(call, handles[i]);
    const size_t size = size_t(e.shape.elements()) * size_of(e.dtype);
    call.require(hosts[i].size == size, "ERR_LIBMOE_SHAPE", "the tensor holds " + std::to_string(size) + " bytes, the array " + std::to_string(hosts[i].size));
    if (!first) first = e.storage.get();
    call.require(e.storage->device == first->device, "ERR_LIBMOE_DEVICE", "downloadAll reads from one device");
    list.push_back({hosts[i].data, static_cast<char*>(e.storage->data) + e.offset, size});
  }
  if (first) first->backend.download_all(first->device, list);
}

// copy(to, from): same dtype and element count
void copy(Call& call) {
  const TensorView to = call.tensor("to", kAny), from = call.tensor("from", kAny);
  call.same_dtype("to", to, "from", from);
  call.require(to.elements() == from.elements(), "ERR_LIBMOE_SHAPE", "copy from " + from.shape.text() + " to " + to.shape.text());
  call.backend().copy(to.device, to.data, from.data, to.bytes());
}

void clear(Call& call) {
  const TensorView t = call.tensor("tensor", kAny);
  call.backend().clear(t.device, t.data, t.bytes());
}

// memory(deviceKind, deviceIndex) -> {handles, storages, bytes, peakBytes, pooledBytes, waits}
Napi::Value memory(Call& call) {
  const Device device = device_from(call);
  const MemoryCounters& c = memory_counters(device);
  const bool on_cuda = device.kind == DeviceKind::cuda && size_t(device.index) < cuda_status().devices.size();
  Napi::Object o = Napi::Object::New(call.env());
  o["handles"] = Napi::Number::New(call.env(), double(handles_of(call.env()).live()));
  o["storages"] = Napi::Number::New(call.env(), double(c.storages.load()));
  o["bytes"] = Napi::Number::New(call.env(), double(c.bytes.load()));
  o["peakBytes"] = Napi::Number::New(call.env(), double(c.peak_bytes.load()));
  o["pooledBytes"] = Napi::Number::New(call.env(), double(on_cuda ? cuda_pooled_bytes(device) : c.pooled_bytes.load()));
  o["waits"] = Napi::Number::New(call.env(), on_cuda ? double(cuda_waits(device)) : 0.0);
  return o;
}

void reset_peak(Call& call) {
  MemoryCounters& c = memory_counters(device_from(call));
  c.peak_bytes = c.bytes.load();
}

void trim(Call& call) {
  cpu_backend().trim();
  if (!cuda_status().devices.empty()) cuda_backend().trim();
  tell_collector(call.env(), true);
}

// synchronise(deviceKind, deviceIndex): waits for everything enqueued, and throws what went wrong on the device
void synchronise(Call& call) {
  const Device device = device_from(call);
  backend_of(device).synchronise(device);
}

// Marks in the compute streams, by the number that JavaScript holds.
class Marks {
 public:
  double add(Device device, void* event) {
    const std::lock_guard<std::mutex> lock(mutex_);
    marks_[++last_] = {device, event};
    return double(last_);
  }
  std::pair<Device, void*> find(Call& call, const char* what) {
    const int64_t number = call.integer(what, 1, int64_t(1) << 50);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = marks_.find(number);
    if (found == marks_.end()) call.reject("ERR_LIBMOE_DISPOSED", std::string(what) + " is no mark; it may have been dropped");
    return found->second;
  }
  void* take(Device device, int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = marks_.find(number);
    if (found == marks_.end() || !(found->second.first == device)) return nullptr;
    void* event = found->second.second;
    marks_.erase(found);
    return event;
  }

 private:
  std::mutex mutex_;
  int64_t last_ = 0;
  std::unordered_map<int64_t, std::pair<Device, void*>> marks_;
};
Marks& marks() {
  static auto* m = new Marks;  // outlives late calls
  return *m;
}

// mark(deviceKind, deviceIndex) -> number: the place in the compute stream that has been reached so far
Napi::Value mark(Call& call) {
  const Device device = device_from(call);
  const Backend& backend = backend_of(device);
  call.require(backend.mark != nullptr, "ERR_LIBMOE_UNSUPPORTED", std::string("device time needs a device that works while the host goes on, got ") + backend.name);
  return Napi::Number::New(call.env(), marks().add(device, backend.mark(device)));
}

// elapsed(from, to) -> milliseconds of device time between two marks of one device; waits for the second
Napi::Value elapsed(Call& call) {
  const auto [device, from] = marks().find(call, "from");
  const auto [other, to] = marks().find(call, "to");
  call.require(device == other, "ERR_LIBMOE_DEVICE", "both marks must be of the same device");
  return Napi::Number::New(call.env(), backend_of(device).milliseconds(device, from, to));
}

// dropMark(deviceKind, deviceIndex, mark)
void drop_mark(Call& call) {
  const Device device = device_from(call);
  if (void* event = marks().take(device, call.integer("mark", 1, int64_t(1) << 50))) backend_of(device).drop_mark(device, event);
}

// cudaStatus() -> {compiled, driver, runtime, why, devices: [{name, major, minor, multiprocessors, memoryBytes, emulated}], leftOut: [{ordinal, name, why}]}
Napi::Value status_of_cuda(Call& call) {
  const CudaStatus& s = cuda_status();
  Napi::Object o = Napi::Object::New(call.env());
  o["compiled"] = Napi::Boolean::New(call.env(), s.compiled);
  o["driver"] = Napi::Number::New(call.env(), s.driver);
  o["runtime"] = Napi::Number::New(call.env(), s.runtime);
  o["why"] = Napi::String::New(call.env(), s.why);
  Napi::Array list = Napi::Array::New(call.env(), s.devices.size());
  for (size_t i = 0; i < s.devices.size(); ++i) {
    const CudaDevice& d = s.devices[i];
    Napi::Object item = Napi::Object::New(call.env());
    item["name"] = Napi::String::New(call.env(), d.name);
    item["major"] = Napi::Number::New(call.env(), d.major);
    item["minor"] = Napi::Number::New(call.env(), d.minor);
    item["multiprocessors"] = Napi::Number::New(call.env(), d.multiprocessors);
    item["memoryBytes"] = Napi::Number::New(call.env(), double(d.memory_bytes));
    item["emulated"] = Napi::Boolean::New(call.env(), d.emulated);
    list[uint32_t(i)] = item;
  }
  o["devices"] = list;
  Napi::Array left_out = Napi::Array::New(call.env(), s.left_out.size());
  for (size_t i = 0; i < s.left_out.size(); ++i) {
    Napi::Object item = Napi::Object::New(call.env());
    item["ordinal"] = Napi::Number::New(call.env(), s.left_out[i].ordinal);
    item["name"] = Napi::String::New(call.env(), s.left_out[i].name);
    item["why"] = Napi::String::New(call.env(), s.left_out[i].why);
    left_out[uint32_t(i)] = item;
  }
  o["leftOut"] = left_out;
  return o;
}

Napi::Value cpu_info(Call& call) {
  Napi::Object o = Napi::Object::New(call.env());
  o["instructionSet"] = Napi::String::New(call.env(), cpu_backend().instruction_set);
  o["threads"] = Napi::Number::New(call.env(), thread_count());
  return o;
}

void set_threads(Call& call) { set_thread_count(int(call.integer("threads", 1, 1024))); }

}  // namespace

void bind_tensors(Napi::Object exports) {
  expose(exports, "empty", empty);
  expose(exports, "view", view);
  expose(exports, "release", release);
  expose(exports, "collected", collected);
  expose(exports, "upload", upload);
  expose(exports, "download", download);
  expose(exports, "downloadAll", download_all);
  expose(exports, "copy", copy);
  expose(exports, "clear", clear);
  expose(exports, "memory", memory);
  expose(exports, "resetPeak", reset_peak);
  expose(exports, "trim", trim);
  expose(exports, "synchronise", synchronise);
  expose(exports, "mark", mark);
  expose(exports, "elapsed", elapsed);
  expose(exports, "dropMark", drop_mark);
  expose(exports, "cudaStatus", status_of_cuda);
  expose(exports, "cpuInfo", cpu_info);
  expose(exports, "setThreads", set_threads);
}

}  // namespace libmoe::binding

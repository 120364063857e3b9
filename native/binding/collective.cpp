#include "ops/collective.h"

#include <map>
#include <mutex>

#include "binding/families.h"
#include "binding/handles.h"

namespace libmoe::binding {
namespace {

constexpr Types kReducible = kFloats | kI32 | kI64;

// A promise that another thread settles. Keeps the event loop alive until then.
struct Pending {
  explicit Pending(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise::Deferred deferred;
  std::function<void()> before;  // on JavaScript's thread, when it went well
  std::string error;
};

void settle(Napi::Env env, Napi::Function, std::nullptr_t*, Pending* pending) {
  const std::unique_ptr<Pending> owned(pending);
  if (env == nullptr) return;  // the environment is ending
  const Napi::HandleScope scope(env);
  if (pending->error.empty() && pending->before) {
    try {
      pending->before();
    } catch (const std::exception& e) {
      pending->error = e.what();
    }
  }
  if (pending->error.empty()) return pending->deferred.Resolve(env.Undefined());
  Napi::Error error = Napi::Error::New(env, "ERR_LIBMOE_COLLECTIVE: " + pending->error);
  error.Set("code", Napi::String::New(env, "ERR_LIBMOE_COLLECTIVE"));
  pending->deferred.Reject(error.Value());
}
using Settler = Napi::TypedThreadSafeFunction<std::nullptr_t, Pending, settle>;

struct Promised {
  Napi::Promise promise;
  CollectiveDone done;
};

Promised promised(Napi::Env env, std::function<void()> before = {}) {
  auto* pending = new Pending(env);
  pending->before = std::move(before);
  const Settler settler = Settler::New(env, "libmoe collective", 0, 1);
  return {pending->deferred.Promise(), [pending, settler](const std::string* error) mutable {
            if (error) pending->error = *error;
            if (settler.BlockingCall(pending) == napi_ok) settler.Release();
            else delete pending;  // the environment is closing and has taken the function back
          }};
}

// The communicators of the process by number, as TypeScript knows them.
std::mutex mutex;
std::map<int64_t, std::shared_ptr<Communicator>>& communicators() {
  static auto* all = new std::map<int64_t, std::shared_ptr<Communicator>>;  // outlives the threads that use it
  return *all;
}
int64_t last_number = 0;

struct Place {
  std::shared_ptr<Communicator> communicator;
  std::string what;
};

// The first two arguments of every collective: communicator, and what messages call this piece of work.
Place place(Call& call) {
  const int64_t number = call.integer("communicator", 1, int64_t(1) << 50);
  Place p;
  {
    const std::lock_guard lock(mutex);
    const auto found = communicators().find(number);
    if (found != communicators().end()) p.communicator = found->second;
  }
  call.require(p.communicator != nullptr, "ERR_LIBMOE_STATE", "this communicator was closed");
  p.what = call.string("what");
  return p;
}

Napi::Value submit(Call& call, const Place& p, Device device, std::vector<std::shared_ptr<Storage>> held, Communicator::Job job) {
  const Backend& backend = call.backend();
  if (backend.begin_communication) backend.begin_communication(device);
  std::function<void()> before;
  if (backend.end_communication) before = [&backend, device] { backend.end_communication(device); };
  Promised promise = promised(call.env(), std::move(before));
  p.communicator->submit(p.what, std::move(held), std::move(job), std::move(promise.done));
  return promise.promise;
}

Napi::Value library(Napi::Env env, const CollectiveLibrary& l) {
  Napi::Object o = Napi::Object::New(env);
  o["path"] = Napi::String::New(env, l.path);
  o["version"] = Napi::String::New(env, l.version);
  o["reason"] = Napi::String::New(env, l.reason);
  o["standIn"] = Napi::Boolean::New(env, l.stand_in);
  return o;
}

// openNccl(file), openMpi(file or '') -> {path, version, reason, standIn}; reason '' when it can be used
Napi::Value open_nccl_library(Call& call) { return library(call.env(), open_nccl(call.string("file"))); }
Napi::Value open_mpi_library(Call& call) { return library(call.env(), open_mpi(call.string("file"))); }

// ncclUniqueId() -> Uint8Array
Napi::Value unique_id(Call& call) {
  const std::string id = nccl_unique_id();
  Napi::Uint8Array bytes = Napi::Uint8Array::New(call.env(), id.size());
  std::copy(id.begin(), id.end(), bytes.Data());
  return bytes;
}

// openCommunicator(engine, deviceKind, deviceIndex, rank, size, timeout, id) -> {communicator, connected: Promise}
Napi::Value open_communicator(Call& call) {
  GroupPlace where;
  where.engine = static_cast<GroupPlace::Engine>(call.integer("engine", 0, 1));
  where.device.kind = static_cast<DeviceKind>(call.integer("device kind", 0, 1));
  where.device.index = int(call.integer("device index", 0, 15));
  where.rank = int(call.integer("rank", 0, 1 << 20));
  where.size = int(call.integer("size", where.rank + 1, 1 << 20));
  where.timeout = call.number("timeout");
  const Bytes id = call.bytes("id");
  where.id.assign(id.data, id.size);
  backend_of(where.device);  // refuses a device that is not there
  Promised connected = promised(call.env());
  auto communicator = Communicator::open(where, std::move(connected.done));
  Napi::Object o = Napi::Object::New(call.env());
  const std::lock_guard lock(mutex);
  communicators()[++last_number] = std::move(communicator);
  o["communicator"] = Napi::Number::New(call.env(), double(last_number));
  o["connected"] = connected.promise;
  return o;
}

// interruptCommunicator(communicator, message)
void interrupt_communicator(Call& call) {
  const Place p = place(call);
  p.communicator->interrupt(p.what);
}

// drainCommunicator(communicator, what): Promise
Napi::Value drain_communicator(Call& call) {
  const Place p = place(call);
  Promised promise = promised(call.env());
  p.communicator->drain(std::move(promise.done));
  return promise.promise;
}

// closeCommunicator(communicator, what, agreed): Promise
Napi::Value close_communicator(Call& call) {
  const int64_t number = call.integer("communicator", 1, int64_t(1) << 50);
  std::shared_ptr<Communicator> communicator;
  {
    const std::lock_guard lock(mutex);
    const auto found = communicators().find(number);
    if (found != communicators().end()) {
      communicator = found->second;
      communicators().erase(found);
    }
  }
  call.require(communicator != nullptr, "ERR_LIBMOE_STATE", "this communicator was closed");
  const bool agreed = call.boolean("agreed");
  Promised promise = promised(call.env());
  communicator->close(agreed, std::move(promise.done));
  return promise.promise;
}

// allReduce(communicator, what, tensor, f): f 0 sum, 1 max
Napi::Value all_reduce(Call& call) {
  const Place p = place(call);
  const TensorView t = call.tensor("tensor", kReducible);
  const auto f = static_cast<Reduction>(call.integer("f", 0, 1));
  return submit(call, p, t.device, {call.storage(2)}, [t, f](CollectiveEngine& engine) { engine.all_reduce(t, f); });
}

void one_piece_each(const Call& call, const char* whole_name, const TensorView& whole, const char* piece_name, const TensorView& piece, int64_t size) {
  call.same_dtype(whole_name, whole, piece_name, piece);
  call.require(whole.elements() == piece.elements() * size, "ERR_LIBMOE_SHAPE",
               std::string(whole_name) + " must have " + std::to_string(size) + " times the elements of " + piece_name + ", got " + whole.shape.text() + " and " +
                   piece.shape.text());
}

// reduceScatter(communicator, what, input, output, size)
Napi::Value reduce_scatter(Call& call) {
  const Place p = place(call);
  const TensorView input = call.tensor("input", kReducible), output = call.tensor("output", kReducible);
  one_piece_each(call, "input", input, "output", output, call.integer("size", 1, 1 << 20));
  return submit(call, p, input.device, {call.storage(2), call.storage(3)}, [=](CollectiveEngine& engine) { engine.reduce_scatter(input, output); });
}

// allGather(communicator, what, input, output, size)
Napi::Value all_gather(Call& call) {
  const Place p = place(call);
  const TensorView input = call.tensor("input", kAny), output = call.tensor("output", kAny);
  one_piece_each(call, "output", output, "input", input, call.integer("size", 1, 1 << 20));
  return submit(call, p, input.device, {call.storage(2), call.storage(3)}, [=](CollectiveEngine& engine) { engine.all_gather(input, output); });
}

void rows_of(const Call& call, const char* name, const std::vector<int64_t>& counts, const TensorView& t, int64_t row, int64_t size) {
  int64_t rows = 0;
  for (int64_t n : counts) {
    call.require(n >= 0, "ERR_LIBMOE_SHAPE", std::string(name) + " must not be negative");
    rows += n;
  }
  call.require(int64_t(counts.size()) == size && rows * row <= t.elements(), "ERR_LIBMOE_SHAPE",
               std::string(name) + " must be one count for each rank, " + std::to_string(t.elements() / std::max<int64_t>(1, row)) + " rows in all at most");
}

// allToAll(communicator, what, input, inputCounts, output, outputCounts, row, size): counts in rows of `row` elements
Napi::Value all_to_all(Call& call) {
  const Place p = place(call);
  const TensorView input = call.tensor("input", kAny);
  const auto input_counts = call.integers("inputCounts");
  const TensorView output = call.tensor("output", kAny);
  const auto output_counts = call.integers("outputCounts");
  const int64_t row = call.integer("row", 0, int64_t(1) << 40), size = call.integer("size", 1, 1 << 20);
  call.same_dtype("input", input, "output", output);
  rows_of(call, "inputCounts", input_counts, input, row, size);
  rows_of(call, "outputCounts", output_counts, output, row, size);
  return submit(call, p, input.device, {call.storage(2), call.storage(4)},
                [=](CollectiveEngine& engine) { engine.all_to_all(input, input_counts, output, output_counts, row); });
}

// broadcast(communicator, what, tensor, root)
Napi::Value broadcast(Call& call) {
  const Place p = place(call);
  const TensorView t = call.tensor("tensor", kAny);
  const int root = int(call.integer("root", 0, 1 << 20));
  return submit(call, p, t.device, {call.storage(2)}, [t, root](CollectiveEngine& engine) { engine.broadcast(t, root); });
}

}  // namespace

void bind_collective(Napi::Object exports) {
  expose(exports, "openNccl", open_nccl_library);
  expose(exports, "openMpi", open_mpi_library);
  expose(exports, "ncclUniqueId", unique_id);
  expose(exports, "openCommunicator", open_communicator);
  expose(exports, "interruptCommunicator", interrupt_communicator);
  expose(exports, "drainCommunicator", drain_communicator);
  expose(exports, "closeCommunicator", close_communicator);
  expose(exports, "allReduce", all_reduce);
  expose(exports, "reduceScatter", reduce_scatter);
  expose(exports, "allGather", all_gather);
  expose(exports, "allToAll", all_to_all);
  expose(exports, "broadcast", broadcast);
}

}  // namespace libmoe::binding

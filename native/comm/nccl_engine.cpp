// Collectives on CUDA through NCCL. The communicator does not block: a call may return "in progress", and then the next one has to wait until NCCL has
// connected and enqueued it; that wait has an end. What happens on the device after that is watched by the communicator's thread.
#include <cstring>

#include "comm/engine.h"
#include "comm/nccl.h"
#include "core/error.h"

namespace libmoe::comm {
namespace {

NcclType type_of(Dtype t) {
  switch (t) {
    case Dtype::f32: return kNcclFloat32;
    case Dtype::f64: return kNcclFloat64;
    case Dtype::bf16: return kNcclBfloat16;
    case Dtype::i32: return kNcclInt32;
    case Dtype::i64: return kNcclInt64;
    default: fail("ERR_LIBMOE_DTYPE", std::string("NCCL cannot add ") + name_of(t));
  }
}

class NcclEngine final : public CollectiveEngine {
 public:
  NcclEngine(const GroupPlace& place, const Patience& patience) : f_(nccl()), place_(place), patience_(patience) {
    stream();  // makes the device current: NCCL takes the one that is
    NcclConfig config;
    NcclUniqueId id;
    if (place.id.size() != sizeof id.bytes) give_up("NCCL's unique id has " + std::to_string(place.id.size()) + " bytes, 128 are needed");
    std::memcpy(id.bytes, place.id.data(), sizeof id.bytes);
    try {
      settle(f_.comm_init_rank_config(&comm_, place.size, id, place.rank, &config));
      int count = 0;
      settle(f_.comm_count(comm_, &count));
      if (count != place.size) give_up("NCCL connects " + std::to_string(count) + " ranks, WORLD_SIZE is " + std::to_string(place.size));
    } catch (...) {
      abort();
      throw;
    }
  }
  ~NcclEngine() override { abort(); }

  void all_reduce(const TensorView& t, Reduction f) override {
    if (t.elements() == 0) return;
    settle(f_.all_reduce(t.data, t.data, size_t(t.elements()), type_of(t.dtype), f == Reduction::max ? kNcclMax : kNcclSum, comm_, stream()));
  }
  void reduce_scatter(const TensorView& input, const TensorView& output) override {
    if (output.elements() == 0) return;
    settle(f_.reduce_scatter(input.data, output.data, size_t(output.elements()), type_of(input.dtype), kNcclSum, comm_, stream()));
  }
  void all_gather(const TensorView& input, const TensorView& output) override {
    if (input.elements() == 0) return;
    settle(f_.all_gather(input.data, output.data, input.bytes(), kNcclUint8, comm_, stream()));
  }
  void all_to_all(const TensorView& input, const std::vector<int64_t>& input_counts, const TensorView& output, const std::vector<int64_t>& output_counts,
                  int64_t row) override {
    void* const s = stream();
    bool any = false;
    int64_t from = 0, to = 0;
    Together together(*this);
    for (int peer = 0; peer < place_.size; ++peer) {
      const TensorView out = part(input, from * row, input_counts[size_t(peer)] * row), in = part(output, to * row, output_counts[size_t(peer)] * row);
      if (out.bytes()) check(f_.send(out.data, out.bytes(), kNcclUint8, peer, comm_, s));
      if (in.bytes()) check(f_.recv(in.data, in.bytes(), kNcclUint8, peer, comm_, s));
      any = any || out.bytes() || in.bytes();
      from += input_counts[size_t(peer)];
      to += output_counts[size_t(peer)];
    }
    const NcclResult r = together.end();
    if (any) settle(r);
    else check(r);
  }
  void broadcast(const TensorView& t, int root) override {
    if (t.elements() == 0) return;
    settle(f_.broadcast(t.data, t.data, t.bytes(), kNcclUint8, root, comm_, stream()));
  }

  void finish() override {
    settle(f_.comm_finalize(comm_));
    const NcclComm comm = comm_;
    comm_ = nullptr;
    check(f_.comm_destroy(comm));
  }
  void abort() noexcept override {
    if (!comm_) return;
    f_.comm_abort(comm_);
    comm_ = nullptr;
  }

 private:
  // Calls that NCCL takes in as one. An error between them must not leave the group open: NCCL would put off every later call of this thread, and comm_abort with them.
  class Together {
   public:
    explicit Together(const NcclEngine& engine) : f_(engine.f_) { engine.check(f_.group_start()); }
    ~Together() {
      if (open_) f_.group_end();
    }
    Together(const Together&) = delete;
    Together& operator=(const Together&) = delete;
    NcclResult end() {
      open_ = false;
      return f_.group_end();
    }

   private:
    const NcclFunctions& f_;
    bool open_ = true;
  };

  void* stream() const {
    const Backend& backend = backend_of(place_.device);
    return backend.communication_stream ? backend.communication_stream(place_.device) : nullptr;
  }

  void check(NcclResult r) const {
    if (r == kNcclSuccess || r == kNcclInProgress) return;
    std::string text = f_.get_error_string(r);
    // The words of NCCL's last warning; may be empty.
    if (const char* last = comm_ ? f_.get_last_error(comm_) : nullptr; last && *last) text += std::string(" (") + last + ")";
    give_up("rank " + std::to_string(place_.rank) + ": NCCL reports " + text +
            (r == kNcclRemoteError ? "; look at the other ranks for the cause" : "; NCCL_DEBUG=WARN shows more"));
  }

  // Waits until NCCL has taken in the call that returned `r`.
  void settle(NcclResult r) const {
    check(r);
    wait_until(
        patience_, std::chrono::milliseconds(1),
        [this] {
          NcclResult state = kNcclSuccess;
          check(f_.comm_get_async_error(comm_, &state));
          check(state);
          return state != kNcclInProgress;
        },
        [this] {
          return "rank " + std::to_string(place_.rank) + " has waited " + seconds_text(patience_.seconds()) +
                 " for NCCL: a rank has not begun the same call, or its process or link is gone";
        });
  }

  const NcclFunctions& f_;
  const GroupPlace place_;
  const Patience& patience_;
  NcclComm comm_ = nullptr;
};

}  // namespace

std::unique_ptr<CollectiveEngine> make_nccl(const GroupPlace& place, const Patience& patience) {
  if (place.device.kind != DeviceKind::cuda && !nccl_is_stand_in()) give_up("NCCL works on CUDA devices, the group's device is the CPU");
  return std::make_unique<NcclEngine>(place, patience);
}

}  // namespace libmoe::comm

// Collectives on the CPU, made of MPI's sends and receives. Every rank sends each other rank what that one needs, straight: as many bytes as the best
// algorithms, and (ranks − 1) messages, which is few for the ranks of a CPU. In return the order of a sum is ours and the same for every size and MPI,
// bf16 is rounded once, and it is known which rank has not sent.
//   all_reduce      small: everybody sends everything. Large: rank r receives slice r of all, adds it and sends it to all.
//   reduce_scatter  rank r receives piece r of all and adds it
//   broadcast       small: the root sends to all. Large: the root sends slice r to rank r, which sends it to all.
#include <algorithm>
#include <cstring>

#include "comm/engine.h"
#include "comm/mpi.h"
#include "comm/reduce.h"
#include "core/error.h"

namespace libmoe::comm {
namespace {

constexpr int64_t kSmall = 32 << 10;       // bytes: one round instead of two
constexpr int64_t kSegment = 32 << 20;     // bytes of the tensor at a time: bounds what is received before it is added
constexpr int64_t kMessage = 1 << 30;      // bytes: MPI counts in int

class MpiEngine final : public CollectiveEngine {
 public:
  MpiEngine(const GroupPlace& place, const Patience& patience) : mpi_(mpi()), rank_(place.rank), size_(place.size), patience_(patience) {
    int rank = 0, size = 0;
    const int code = mpi_.start(&rank, &size);
    if (code == 1) give_up("MPI can be started once in a process: keep the process group that was made first");
    check(code, "starting MPI");
    if (size != size_) {
      if (size == 1) mpi_.finish();
      give_up("MPI has started " + std::to_string(size) + (size == 1 ? " process" : " processes") + ", the environment says that the world size is " +
              std::to_string(size_) + ": start the ranks with mpirun (libmoe launch does), so that MPI knows all of them");
    }
    if (rank != rank_)
      give_up("MPI calls this process rank " + std::to_string(rank) + ", the environment rank " + std::to_string(rank_) + ": leave RANK to mpirun");
  }

  void all_reduce(const TensorView& t, Reduction f) override {
    const int64_t element = int64_t(size_of(t.dtype)), all = t.elements();
    if (int64_t(t.bytes()) <= kSmall) return all_reduce_at_once(t, f);
    const int64_t step = kSegment / element;
    for (int64_t begin = 0; begin < all; begin += step) all_reduce_by_slices(part(t, begin, std::min(step, all - begin)), f);
  }

  void reduce_scatter(const TensorView& input, const TensorView& output) override {
    const int64_t piece = output.elements(), step = std::max<int64_t>(1, kSegment / int64_t(size_of(input.dtype)) / size_);
    for (int64_t begin = 0; begin < piece; begin += step) {
      const int64_t n = std::min(step, piece - begin);
      reduce_slices([&](int r) { return part(input, r * piece + begin, n); }, part(output, begin, n), Reduction::sum);
    }
  }

  void all_gather(const TensorView& input, const TensorView& output) override {
    const int64_t n = input.elements();
    for (int r = 0; r < size_; ++r) move(r, input, part(output, r * n, n));
    transfer();
  }

  void all_to_all(const TensorView& input, const std::vector<int64_t>& input_counts, const TensorView& output, const std::vector<int64_t>& output_counts,
                  int64_t row) override {
    int64_t from = 0, to = 0;
    for (int r = 0; r < size_; ++r) {
      move(r, part(input, from * row, input_counts[size_t(r)] * row), part(output, to * row, output_counts[size_t(r)] * row));
      from += input_counts[size_t(r)];
      to += output_counts[size_t(r)];
    }
    transfer();
  }

  void broadcast(const TensorView& t, int root) override {
    const int64_t all = t.elements(), step = kSegment / int64_t(size_of(t.dtype));
    const bool small = int64_t(t.bytes()) <= kSmall;
    for (int64_t begin = 0; begin < all; begin += step) {
      const TensorView s = part(t, begin, std::min(step, all - begin));
      if (rank_ == root) {
        for (int r = 0; r < size_; ++r)
          if (r != root) send(r, small ? s : slice(s, r));
      } else {
        receive(root, small ? s : slice(s, rank_));
      }
      transfer();
      if (small) continue;
      // The root has everything: it keeps its own slice and hands that one out too.
      for (int r = 0; r < size_; ++r) {
        if (r == rank_) continue;
        if (r != root) send(r, slice(s, rank_));
        if (rank_ != root) receive(r, slice(s, r));
      }
      transfer();
    }
  }

  void finish() override { check(mpi_.finish(), "leaving MPI"); }
  // Nothing of MPI may be called any more: it would wait for the ranks that are gone. What was begun may still write into the scratch memory.
  void abort() noexcept override { (void)scratch_.release(); }

 private:
  struct Leg {
    char* data;
    int64_t bytes;
    int peer;
    bool receives;
    int request = -1;
  };

  TensorView slice(const TensorView& t, int r) const {
    const int64_t n = t.elements();
    const int64_t begin = n * r / size_, end = n * (r + 1) / size_;
    return part(t, begin, end - begin);
  }

  void all_reduce_at_once(const TensorView& t, Reduction f) {
    reduce_slices([&](int) { return t; }, t, f);
  }

  void all_reduce_by_slices(const TensorView& t, Reduction f) {
    reduce_slices([&](int r) { return slice(t, r); }, slice(t, rank_), f);
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      send(r, slice(t, rank_));
      receive(r, slice(t, r));
    }
    transfer();
  }

  // Rank r gets of_rank(r) of every rank; the sum in the order of ranks goes to `to`, which may be of_rank(rank) itself.
  template <class OfRank> void reduce_slices(OfRank&& of_rank, const TensorView& to, Reduction f) {
    const TensorView mine = of_rank(rank_);
    const size_t bytes = mine.bytes(), stride = (bytes + 63) / 64 * 64;
    char* room = scratch(stride * size_t(size_));
    inputs_.resize(size_t(size_));
    for (int r = 0; r < size_; ++r) {
      TensorView in = mine;
      if (r != rank_) {
        in.data = room + stride * size_t(r);
        send(r, of_rank(r));
        receive(r, in);
      }
      inputs_[size_t(r)] = in.data;
    }
    transfer();
    reduce(mine.dtype, f, inputs_.data(), size_, to.data, mine.elements());
  }

  char* scratch(size_t bytes) {
    if (bytes > scratch_bytes_) {
      scratch_.reset();
      scratch_.reset(new char[bytes]);
      scratch_bytes_ = bytes;
    }
    return scratch_.get();
  }

  // To rank r and from it; with ourselves a copy.
  void move(int r, const TensorView& out, const TensorView& in) {
    if (r != rank_) {
      send(r, out);
      receive(r, in);
      return;
    }
    if (out.bytes() != in.bytes())
      give_up("rank " + std::to_string(rank_) + " sends itself " + std::to_string(out.bytes()) + " bytes and expects " + std::to_string(in.bytes()));
    if (in.bytes() && in.data != out.data) std::memcpy(in.data, out.data, in.bytes());
  }
  void send(int r, const TensorView& t) { add(r, t, false); }
  void receive(int r, const TensorView& t) { add(r, t, true); }
  void add(int peer, const TensorView& t, bool receives) {
    const int64_t bytes = int64_t(t.bytes());
    for (int64_t begin = 0; begin < bytes; begin += kMessage)
      legs_.push_back({static_cast<char*>(t.data) + begin, std::min(kMessage, bytes - begin), peer, receives});
  }

  // Carries out what was added since the last time.
  void transfer() {
    // A call's messages carry its number, so that a rank that leaves one out cannot be taken for one that is late. MPI allows tags up to 32767 at least.
    tag_ = (tag_ + 1) % 32768;
    for (Leg& leg : legs_)
      if (leg.receives) check(mpi_.receive(leg.data, int(leg.bytes), leg.peer, tag_, &leg.request), "receiving");
    for (Leg& leg : legs_)
      if (!leg.receives) check(mpi_.send(leg.data, int(leg.bytes), leg.peer, tag_, &leg.request), "sending");
    int64_t bytes = 0;
    for (const Leg& leg : legs_) bytes += leg.bytes;
    // Bytes go in pieces, each when MPI is asked: a time in which a slow machine moves them.
    wait_until(
        patience_, std::chrono::milliseconds(1) + std::chrono::nanoseconds(4 * bytes),
        [this] {
          std::erase_if(legs_, [this](const Leg& leg) { return complete(leg); });
          return legs_.empty();
        },
        [this] { return missing(); });
  }

  bool complete(const Leg& leg) const {
    int done = 0, bytes = 0;
    check(mpi_.test(leg.request, &done, &bytes), leg.receives ? "receiving" : "sending", leg.peer);
    if (done && leg.receives && bytes != leg.bytes)
      give_up("rank " + std::to_string(leg.peer) + " sent " + std::to_string(bytes) + " bytes, rank " + std::to_string(rank_) + " expected " + std::to_string(leg.bytes) +
              ": every rank must call the same collectives in the same order with the same shapes");
    return done != 0;
  }

  // Whom we are waiting for: those that have not sent; if all have, those that have not received.
  std::string missing() const {
    std::string ranks;
    for (const bool receives : {true, false}) {
      for (int r = 0; r < size_; ++r)
        if (std::any_of(legs_.begin(), legs_.end(), [&](const Leg& leg) { return leg.peer == r && leg.receives == receives; }))
          ranks += (ranks.empty() ? "" : ", ") + std::to_string(r);
      if (!ranks.empty()) break;
    }
    return "rank " + std::to_string(rank_) + " has waited " + seconds_text(patience_.seconds()) + " for rank " + ranks;
  }

  void check(int code, const char* what, int peer = -1) const {
    if (code == 0) return;
    char text[512];
    mpi_.error_text(code, text, sizeof text);
    give_up("rank " + std::to_string(rank_) + ": MPI reports \"" + text + "\" " + what + (peer < 0 ? "" : " (with rank " + std::to_string(peer) + ")"));
  }

  const MpiShim& mpi_;
  const int rank_, size_;
  const Patience& patience_;
  std::vector<Leg> legs_;
  std::vector<const void*> inputs_;
  std::unique_ptr<char[]> scratch_;
  size_t scratch_bytes_ = 0;
  int tag_ = 0;
};

}  // namespace

std::unique_ptr<CollectiveEngine> make_mpi(const GroupPlace& place, const Patience& patience) {
  if (place.device.kind != DeviceKind::cpu) give_up("MPI moves tensors of the CPU, the group's device is a CUDA device");
  return std::make_unique<MpiEngine>(place, patience);
}

}  // namespace libmoe::comm

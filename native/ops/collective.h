#pragma once
// Collectives: the ranks of a group, one process each, combine or exchange tensors. The engines are NCCL on CUDA and MPI on the CPU, both opened at
// run time (native/comm). Every rank calls the same collectives in the same order with the same shapes. Calls are queued and carried out by a thread
// of the communicator; on CUDA that thread enqueues on the communication stream and then watches it. Nothing waits longer than the group's time-out:
// then, or when an engine reports an error, or when someone interrupts it, the communicator is lost and this and every later call fails.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"

namespace libmoe {

enum class Reduction : uint8_t { sum, max };

// What an engine does. Called by the communicator's thread alone; throws Error. Sums on the CPU are ((rank 0 + rank 1) + rank 2) + …, bf16 added in f32
// and rounded once, for any size, position and timing; on CUDA the order is NCCL's choice for the number of ranks, the machine and the size.
// Reductions take f32, f64, bf16, i32, i64; the maximum of a NaN and a number is NaN on the CPU, NCCL's choice on CUDA. Moves take any dtype.
class CollectiveEngine {
 public:
  virtual ~CollectiveEngine() = default;
  virtual void all_reduce(const TensorView& data, Reduction f) = 0;                          // in place
  virtual void reduce_scatter(const TensorView& input, const TensorView& output) = 0;        // sum; input: one piece of the size of output for each rank
  virtual void all_gather(const TensorView& input, const TensorView& output) = 0;            // output: the inputs by rank
  // Rows of `row` elements: the first input_counts[0] rows go to rank 0 and so on; outputs lie by rank. Counts may be 0.
  virtual void all_to_all(const TensorView& input, const std::vector<int64_t>& input_counts, const TensorView& output, const std::vector<int64_t>& output_counts,
                          int64_t row) = 0;
  virtual void broadcast(const TensorView& data, int root) = 0;
  // Ends the engine's own dealings with the other ranks, all of which do the same now. Not called after a failure.
  virtual void finish() = 0;
  // Gives up: whatever is under way ends, without asking the others.
  virtual void abort() noexcept = 0;
};

// Where a communicator stands.
struct GroupPlace {
  enum class Engine : uint8_t { mpi, nccl } engine = Engine::mpi;
  Device device;
  int rank = 0, size = 1;
  double timeout = 300;  // seconds
  std::string id;        // NCCL's unique id (128 bytes), the same on every rank; empty for MPI
};

// Called once for each piece of work, on a thread of the communicator; null when it went well.
using CollectiveDone = std::function<void(const std::string* error)>;

class Communicator {
 public:
  // Returns at once; `connected` reports when the ranks have found each other, or why not.
  static std::shared_ptr<Communicator> open(const GroupPlace& place, CollectiveDone connected);
  virtual ~Communicator() = default;
  // `what` names the work in messages. `job` runs on the thread; `held` lives until the device is done with it, though `done` may come before that on
  // CUDA: then the work has been enqueued.
  using Job = std::function<void(CollectiveEngine&)>;
  virtual void submit(std::string what, std::vector<std::shared_ptr<Storage>> held, Job job, CollectiveDone done) = 0;
  // Reports when everything submitted before is complete on the device.
  virtual void drain(CollectiveDone done) = 0;
  // Fails what is under way and what comes later with this message. From any thread.
  virtual void interrupt(const std::string& message) = 0;
  // Ends the communicator: in agreement with the other ranks, who do the same now, or without asking them.
  virtual void close(bool agreed, CollectiveDone done) = 0;
};

// A library as it was found, or why there is none.
struct CollectiveLibrary {
  std::string path, version, reason;  // reason is empty when it is usable
  bool stand_in = false;              // the tests' own NCCL, which works on host memory
};
// Opens this file, unless one that is usable was opened before: there is one of each in a process.
CollectiveLibrary open_nccl(const std::string& file);
std::string nccl_unique_id();
// libmoe_mpi.so: `file`, or beside this binary when empty.
CollectiveLibrary open_mpi(const std::string& file);

}  // namespace libmoe

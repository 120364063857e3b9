#pragma once
// One table per kind of device. cpu/ and cuda/ fill theirs when the library loads; everything above calls through it.
// A family that a backend lacks is null, and the binding then answers ERR_LIBMOE_UNSUPPORTED.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace libmoe {

struct AttentionOps;
struct ElementwiseOps;
struct EmbeddingOps;
struct GatingOps;
struct GemmOps;
struct GroupedFfnOps;
struct ImageOps;
struct LossOps;
struct NormOps;
struct OptimizerOps;
struct PermutationOps;
struct RandomOps;
struct ReductionOps;
struct RotaryOps;
struct ShapeOps;
struct SoftmaxOps;

// Bytes that are to come to the host.
struct HostCopy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Backend {
  const char* name = "";
  std::string instruction_set;

  void* (*allocate)(Device, size_t bytes) = nullptr;
  void (*release)(Device, void* data, size_t bytes) = nullptr;
  void (*copy)(Device, void* to, const void* from, size_t bytes) = nullptr;             // within the device
  void (*upload)(Device, void* to, const void* from_host, size_t bytes) = nullptr;
  void (*download)(Device, void* to_host, const void* from, size_t bytes) = nullptr;    // waits
  void (*download_all)(Device, const std::vector<HostCopy>&) = nullptr;                 // waits once
  void (*clear)(Device, void* data, size_t bytes) = nullptr;                            // zero bytes
  void (*synchronise)(Device) = nullptr;
  void (*trim)() = nullptr;

  // The stream that collectives use beside the compute stream; null where work is done inside the call. Callable from any thread; each makes the device
  // current on the calling thread first. begin: the communication stream waits for everything enqueued on the compute stream so far; end: the reverse.
  void* (*communication_stream)(Device) = nullptr;
  void (*begin_communication)(Device) = nullptr;
  void (*end_communication)(Device) = nullptr;
  // mark: a ticket for what is enqueued on the communication stream so far; reached: whether the device has passed it (throws when the device failed).
  uint64_t (*mark_communication)(Device) = nullptr;
  bool (*communication_reached)(Device, uint64_t ticket) = nullptr;
  // Device time: a mark in the compute stream, and the milliseconds between two (waits for the second).
  void* (*mark)(Device) = nullptr;
  double (*milliseconds)(Device, void* from, void* to) = nullptr;
  void (*drop_mark)(Device, void*) = nullptr;

  const AttentionOps* attention = nullptr;
  const ElementwiseOps* elementwise = nullptr;
  const EmbeddingOps* embedding = nullptr;
  const GatingOps* gating = nullptr;
  const GemmOps* gemm = nullptr;
  const GroupedFfnOps* grouped_ffn = nullptr;
  const ImageOps* image = nullptr;
  const LossOps* loss = nullptr;
  const NormOps* norm = nullptr;
  const OptimizerOps* optimizer = nullptr;
  const PermutationOps* permutation = nullptr;
  const RandomOps* random = nullptr;
  const ReductionOps* reduction = nullptr;
  const RotaryOps* rotary = nullptr;
  const ShapeOps* shape = nullptr;
  const SoftmaxOps* softmax = nullptr;
};

// The backend of a device; throws ERR_LIBMOE_DEVICE when there is none, saying why.
const Backend& backend_of(Device device);
const Backend& cpu_backend();

}  // namespace libmoe

#pragma once
// The bf16 matrix products of one generation of GPUs (cuda/sm80, cuda/sm90), summed in f32. Every function only enqueues on state.compute; row counts of
// experts are known to the device alone. The bits of a row depend neither on the number of rows nor on its tile or neighbours: an element is one
// accumulator over ascending k in steps of 16. Any sizes and alignments are taken; fast are rows of 16-byte multiples at 16-byte addresses.
#include "cuda/core/expert_rows.h"
#include "ops/grouped_ffn.h"

namespace libmoe::cuda {

// c = a b (+ bias) (+ c), `batch` times; all contiguous, batches one after the other.
template <class T> struct DenseProduct {
  const T *a, *b, *bias;      // bias [n] or null
  void* c;                    // T, or f32 when wide
  bool wide, transpose_a, transpose_b, accumulate;
  int64_t m, n, k, batch;
};

// z = x[token] up^T + bias, hidden = act(z), gated: act(z_gate) * z_up.
template <class T> struct UpProduct {
  const T *x, *up, *bias;     // [T, d], [E, F, d], [E, F] or null
  T *z, *hidden;              // [slots, F] or null, [slots, width] or null
  int64_t d, width;           // F = gated ? 2 width : width
  bool gated;
  Activation activation;
};

// y = hidden down^T + bias.
template <class T> struct DownProduct {
  const T *hidden, *down, *bias;  // [slots, width], [E, d, width], [E, d] or null
  T* y;                           // [slots, d], without the gate weight
  int64_t d, width;
};

// g = dOut[token] down, not stored; dz from g, the gate weight and z; weighted = w act(z) for the gradient of down; parts[j, row] = the sum over the
// kSlopeColumns columns of piece j of g act(z), whose sum over ascending j is the gradient of the gate weight.
constexpr int kSlopeColumns = 128;
template <class T> struct SlopeProduct {
  const T *d_out, *down, *z;      // [T, d], [E, d, width], [slots, F]
  T *dz, *weighted;               // [slots, F], [slots, width]
  Accumulator<T>* parts;          // [ceil(width / kSlopeColumns), slots]
  int64_t d, width;
  bool gated;
  Activation activation;
};

// dx = dz up, per slot.
template <class T> struct InputProduct {
  const T *dz, *up;               // [slots, F], [E, F, d]
  T* dx;                          // [slots, d]
  int64_t d, full;                // full = F
};

// out[e] (+)= left^T right over the rows of expert e, ascending. Experts without rows: zeros, or nothing when adding.
template <class T> struct WeightProduct {
  const T *left, *right;               // [slots or T, m], [slots or T, n]
  bool gather_left, gather_right;      // rows by token
  Accumulator<T>* out;                 // [E, m, n]
  int64_t m, n;
  bool add;
};

struct TensorCoreOps {
  void (*dense)(const DeviceState&, const DenseProduct<bf16>&) = nullptr;
  void (*up)(const DeviceState&, const ExpertRows<float>&, const UpProduct<bf16>&) = nullptr;
  void (*down)(const DeviceState&, const ExpertRows<float>&, const DownProduct<bf16>&) = nullptr;
  void (*slope)(const DeviceState&, const ExpertRows<float>&, const SlopeProduct<bf16>&) = nullptr;
  void (*input)(const DeviceState&, const ExpertRows<float>&, const InputProduct<bf16>&) = nullptr;
  void (*weight)(const DeviceState&, const ExpertRows<float>&, const WeightProduct<bf16>&) = nullptr;
};

extern const TensorCoreOps sm80_ops;
#ifdef LIBMOE_HAS_SM90
// Entries may be null: sm_80's serve then.
extern const TensorCoreOps sm90_ops;
#endif

// Those of a device: the newest generation's that it can run.
const TensorCoreOps& tensor_core_ops(const DeviceState& state);

}  // namespace libmoe::cuda

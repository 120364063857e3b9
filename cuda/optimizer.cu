// Bound by memory. AdamW reads parameter, gradient and both moments and writes three of them once: 28 bytes per f32 parameter, 30 per bf16 parameter with f32 master
// and gradient. All tensors of a call are cut into pieces of 16 Ki elements, one block each, so that many small tensors are one launch.
#include "ops/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "cuda/core/block.h"
#include "cuda/core/convert.h"
#include "cuda/core/runtime.h"
#include "cuda/core/upload.h"

namespace libmoe::cuda {
namespace {

constexpr int64_t kPiece = 16384;
constexpr int kThreads = 256;

// A tensor among many: which pieces are its, and where its parts lie. A null part is absent.
struct Entry {
  int64_t first_piece, elements;
  const void* gradient;
  void *parameter, *master, *first, *second;
  double weight_decay;
};

// The entries on the device.
class Table {
 public:
  Table(DeviceState& state, std::vector<Entry> list) : memory_(state, std::max<size_t>(1, list.size() * sizeof(Entry))), entries(std::move(list)) {
    for (Entry& e : entries) {
      e.first_piece = pieces;
      pieces += blocks_for(e.elements, kPiece);
    }
    enqueue_upload(state, memory_.as<void>(), entries.data(), entries.size() * sizeof(Entry));
  }
  const Entry* data() const { return memory_.as<const Entry>(); }
  int count() const { return int(entries.size()); }

 private:
  Scratch memory_;

 public:
  std::vector<Entry> entries;  // as on the device
  int64_t pieces = 0;          // of all
};

// The last entry whose pieces begin at or before this one, tensors without elements having none.
__device__ inline const Entry& entry_of(const Entry* entries, int count, int64_t piece) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (entries[middle].first_piece <= piece) low = middle;
    else high = middle - 1;
  }
  return entries[low];
}

struct Adam {
  double beta1, beta2, epsilon, scale, rate, learning_rate, root;
  const double* factor;
};

// Gradients are multiplied by this; not finite: the step is to change nothing.
__device__ inline double factor_of(double scale, const double* factor) { return factor ? scale * *factor : scale; }

template <class T, class G> __global__ void __launch_bounds__(kThreads, 2) adamw_kernel(const Entry* entries, int count, Adam o) {
  using A = Accumulator<T>;
  const double factor = factor_of(o.scale, o.factor);
  if (!isfinite(factor)) return;
  const Entry e = entry_of(entries, count, blockIdx.x);
  const int64_t begin = (int64_t(blockIdx.x) - e.first_piece) * kPiece, end = min(e.elements, begin + kPiece);
  const G* gradient = static_cast<const G*>(e.gradient);
  T* parameter = static_cast<T*>(e.parameter);
  A *master = static_cast<A*>(e.master), *first = static_cast<A*>(e.first), *second = static_cast<A*>(e.second);
  const A scale = A(factor), decay = A(1 - o.learning_rate * e.weight_decay), take1 = A(1 - o.beta1), keep2 = A(o.beta2), take2 = A(1 - o.beta2), root = A(o.root),
          epsilon = A(o.epsilon), rate = A(o.rate);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const A g = load(gradient[i]) * scale, m0 = first[i];
    const A m = fma(take1, g - m0, m0), v = fma(take2 * g, g, second[i] * keep2);
    first[i] = m;
    second[i] = v;
    const A p = fma(rate, m / (sqrt(v) / root + epsilon), (master ? master[i] : load(parameter[i])) * decay);
    if (master) master[i] = p;
    parameter[i] = store<T>(p);
  }
}

struct Descent {
  double momentum, scale, learning_rate;
  bool nesterov;
  const double* factor;
};

template <class T, class G> __global__ void __launch_bounds__(kThreads, 2) sgd_kernel(const Entry* entries, int count, Descent o) {
  using A = Accumulator<T>;
  const double factor = factor_of(o.scale, o.factor);
  if (!isfinite(factor)) return;
  const Entry e = entry_of(entries, count, blockIdx.x);
  const int64_t begin = (int64_t(blockIdx.x) - e.first_piece) * kPiece, end = min(e.elements, begin + kPiece);
  const G* gradient = static_cast<const G*>(e.gradient);
  T* parameter = static_cast<T*>(e.parameter);
  A *master = static_cast<A*>(e.master), *buffer = static_cast<A*>(e.first);
  const A scale = A(factor), decay = A(e.weight_decay), momentum = A(o.momentum), rate = A(-o.learning_rate);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const A p = master ? master[i] : load(parameter[i]);
    A step = fma(decay, p, load(gradient[i]) * scale);
    if (buffer) {
      const A b = fma(momentum, buffer[i], step);
      buffer[i] = b;
      step = o.nesterov ? fma(momentum, b, step) : b;
    }
    const A updated = fma(rate, step, p);
    if (master) master[i] = updated;
    parameter[i] = store<T>(updated);
  }
}

double power(double x, int64_t n) {
  double r = 1;
  for (; n > 0; n >>= 1, x *= x)
    if (n & 1) r *= x;
  return r;
}

void* data_of(const TensorView& t) { return t.data; }

// Calls body.<T, G>(tensors of these types), once for each pair of types that occurs.
template <class Tensor, class F> void by_types(const std::vector<Tensor>& tensors, F&& body) {
  for (const Dtype parameter : {Dtype::f32, Dtype::bf16, Dtype::f64})
    for (const bool own : {false, true}) {
      if (own && parameter != Dtype::bf16) continue;
      std::vector<const Tensor*> chosen;
      for (const Tensor& t : tensors)
        if (t.parameter.dtype == parameter && (parameter != Dtype::bf16 || (t.gradient.dtype == parameter) == own)) chosen.push_back(&t);
      if (chosen.empty()) continue;
      if (parameter == Dtype::f32) body.template operator()<float, float>(chosen);
      else if (parameter == Dtype::f64) body.template operator()<double, double>(chosen);
      else if (own) body.template operator()<bf16, bf16>(chosen);
      else body.template operator()<bf16, float>(chosen);
    }
}

void adamw(const std::vector<AdamwTensor>& tensors, const AdamwOptions& o) {
  DeviceState& state = state_of(tensors.front().parameter.device);
  const double correction1 = 1 - power(o.beta1, o.step), correction2 = std::sqrt(1 - power(o.beta2, o.step));
  const Adam options{o.beta1, o.beta2, o.epsilon, o.gradient_scale, -(o.learning_rate / correction1), o.learning_rate, correction2, o.factor.as<const double>()};
  by_types(tensors, [&]<class T, class G>(const std::vector<const AdamwTensor*>& chosen) {
    std::vector<Entry> entries;
    for (const AdamwTensor* t : chosen)
      entries.push_back({0, t->parameter.elements(), t->gradient.data, t->parameter.data, data_of(t->master), t->first_moment.data, t->second_moment.data, t->weight_decay});
    const Table table(state, std::move(entries));
    launch(state, adamw_kernel<T, G>, dim3(unsigned(table.pieces)), kThreads, 0, table.data(), table.count(), options);
  });
}

void sgd(const std::vector<SgdTensor>& tensors, const SgdOptions& o) {
  DeviceState& state = state_of(tensors.front().parameter.device);
  const Descent options{o.momentum, o.gradient_scale, o.learning_rate, o.nesterov, o.factor.as<const double>()};
  by_types(tensors, [&]<class T, class G>(const std::vector<const SgdTensor*>& chosen) {
    std::vector<Entry> entries;
    for (const SgdTensor* t : chosen)
      entries.push_back({0, t->parameter.elements(), t->gradient.data, t->parameter.data, data_of(t->master), data_of(t->momentum), nullptr, t->weight_decay});
    const Table table(state, std::move(entries));
    launch(state, sgd_kernel<T, G>, dim3(unsigned(table.pieces)), kThreads, 0, table.data(), table.count(), options);
  });
}

// Per piece: the sum of squares, or 1 where an element is not finite. The element type of an entry stands in `second`: 0 f32, 1 bf16, 2 f64.
template <bool kSquares> __global__ void __launch_bounds__(kThreads) piece_kernel(const Entry* entries, int count, double* results) {
  const Entry e = entry_of(entries, count, blockIdx.x);
  const int64_t begin = (int64_t(blockIdx.x) - e.first_piece) * kPiece, end = min(e.elements, begin + kPiece);
  const auto type = reinterpret_cast<uintptr_t>(e.second);
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double x = type == 0   ? double(static_cast<const float*>(e.gradient)[i])
                     : type == 1 ? double(load(static_cast<const bf16*>(e.gradient)[i]))
                                 : static_cast<const double*>(e.gradient)[i];
    if constexpr (kSquares) sum += x * x;
    else sum = isfinite(x) ? sum : 1;
  }
  sum = block_all<kThreads, Sum>(sum);
  if (threadIdx.x == 0) results[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) total_kernel(const double* sums, int64_t n, double* norm) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) total += sums[i];
  total = block_all<kThreads, Sum>(total);
  if (threadIdx.x == 0) *norm = sqrt(total);
}

std::vector<Entry> entries_of(const std::vector<TensorView>& tensors) {
  std::vector<Entry> entries;
  for (const TensorView& t : tensors)
    entries.push_back({0, t.elements(), t.data, nullptr, nullptr, nullptr, reinterpret_cast<void*>(uintptr_t(t.dtype == Dtype::f32 ? 0 : t.dtype == Dtype::bf16 ? 1 : 2)), 0});
  return entries;
}

void global_norm(const std::vector<TensorView>& tensors, const TensorView& norm) {
  DeviceState& state = state_of(norm.device);
  const Table table(state, entries_of(tensors));
  const Scratch sums(state, size_t(std::max<int64_t>(1, table.pieces)) * sizeof(double));
  launch(state, piece_kernel<true>, dim3(unsigned(table.pieces)), kThreads, 0, table.data(), table.count(), sums.as<double>());
  launch(state, total_kernel, 1, kThreads, 0, sums.as<const double>(), table.pieces, norm.as<double>());
}

__global__ void factor_kernel(const Entry* losses, int count, const double* norm, double limit, const unsigned long long* fault, double* factor) {
  bool finite = isfinite(*norm) && *fault == ~0ull;
  for (int i = 0; i < count; ++i)
    for (int64_t j = 0; j < losses[i].elements; ++j)
      finite = finite && isfinite(losses[i].second ? static_cast<const double*>(losses[i].gradient)[j] : double(static_cast<const float*>(losses[i].gradient)[j]));
  const double wanted = isinf(limit) ? 1.0 : limit / (*norm + 1e-6);
  *factor = !finite ? NAN : wanted < 1.0 ? wanted : 1.0;
}

void clip_factor(const TensorView& norm, const std::vector<TensorView>& losses, double limit, const TensorView& factor) {
  DeviceState& state = state_of(norm.device);
  const Table table(state, entries_of(losses));
  launch(state, factor_kernel, 1, 1, 0, table.data(), table.count(), norm.as<const double>(), limit, state.fault, factor.as<double>());
}

int64_t non_finite(const std::vector<TensorView>& tensors) {
  const Device device = tensors.front().device;
  DeviceState& state = state_of(device);
  const Table table(state, entries_of(tensors));
  if (table.pieces == 0) return -1;
  const Scratch bad(state, size_t(table.pieces) * sizeof(double));
  launch(state, piece_kernel<false>, dim3(unsigned(table.pieces)), kThreads, 0, table.data(), table.count(), bad.as<double>());
  std::vector<double> host(size_t(table.pieces), 0.0);
  check(cudaMemcpyAsync(host.data(), bad.as<void>(), host.size() * sizeof(double), cudaMemcpyDeviceToHost, state.compute), "copying to the host");
  check(cudaStreamSynchronize(state.compute), "waiting for the device");
  for (size_t t = 0; t < table.entries.size(); ++t)
    for (int64_t p = 0; p < blocks_for(table.entries[t].elements, kPiece); ++p)
      if (host[size_t(table.entries[t].first_piece + p)] != 0) return int64_t(t);
  return -1;
}

}  // namespace

extern const OptimizerOps optimizer_ops;
const OptimizerOps optimizer_ops = {adamw, sgd, global_norm, clip_factor, non_finite};

}  // namespace libmoe::cuda

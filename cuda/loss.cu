// Cross entropy. The fused form is bound by three matrix products of 2 tokens * vocabulary * d operations: logits, d_hidden, d_weight; between them a chunk's logits are
// read twice and its gradients written once. Logits exist for one chunk of tokens at a time; when gradients are wanted they are made while the chunk is at hand.
//
// Which tokens count is known on the device alone: they are laid side by side, rows of zeros behind them, and the products run over all rows.
#include "ops/loss.h"

#include <algorithm>

#include "core/dispatch.h"
#include "cuda/core/block.h"
#include "cuda/core/elements.h"
#include "cuda/core/fault.h"
#include "ops/gemm.h"

namespace libmoe::cuda {

extern const GemmOps gemm_ops;

namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunkElements = int64_t(64) << 20;  // logits of a chunk: 256 MB of f32, enough rows for the products to run at full speed

int64_t chunk_tokens(int64_t wanted, int64_t vocabulary, int64_t tokens) {
  const int64_t own = std::clamp<int64_t>(kChunkElements / std::max<int64_t>(1, vocabulary) / 128 * 128, 128, 8192);
  return std::min(wanted > 0 ? wanted : own, std::max<int64_t>(1, tokens));
}

TensorView matrix(void* data, Dtype dtype, Device device, int64_t rows, int64_t columns) {
  TensorView v;
  v.data = data;
  v.dtype = dtype;
  v.device = device;
  v.shape = Shape{2, {rows, columns}};
  return v;
}
TensorView rows_of(const TensorView& t, int64_t first, int64_t count) {
  const int64_t width = t.elements() / std::max<int64_t>(1, t.shape[0]);
  return matrix(t.as<char>() + size_t(first * width) * size_of(t.dtype), t.dtype, t.device, count, width);
}

// counted[0] = number of targets in [0, vocabulary); positions (or null): of those, ascending, then -1. Reports targets outside [-1, vocabulary). One block, which
// goes through the targets a tile at a time.
__global__ void __launch_bounds__(kThreads) count_kernel(const int32_t* targets, int64_t n, int64_t vocabulary, int64_t* counted, int32_t* positions, FaultSlot fault) {
  __shared__ int in_warp[kThreads / 32];
  const unsigned lane = threadIdx.x & 31u, warp = threadIdx.x >> 5;
  int64_t before = 0;
  for (int64_t first = 0; first < n; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const int32_t t = i < n ? targets[i] : -1;
    const bool counts = t >= 0 && t < vocabulary;
    if (t < -1 || t >= vocabulary) fault.report(i);
    const unsigned bits = __ballot_sync(kFullWarp, counts);
    __syncthreads();
    if (lane == 0) in_warp[warp] = __popc(bits);
    __syncthreads();
    int64_t at = before + __popc(bits & ((1u << lane) - 1u));
    for (unsigned w = 0; w < kThreads / 32; ++w) {
      if (w < warp) at += in_warp[w];
      before += in_warp[w];
    }
    if (positions && counts) positions[at] = int32_t(i);
  }
  if (positions)
    for (int64_t i = before + threadIdx.x; i < n; i += kThreads) positions[i] = -1;
  if (threadIdx.x == 0) *counted = before;
}

class Counted {
 public:
  Counted(DeviceState& state, const TensorView& targets, int64_t vocabulary, bool with_positions = false)
      : count_(state, 8), positions_(state, with_positions ? size_t(targets.elements() + 1) * 4 : 4) {
    launch(state, count_kernel, 1, kThreads, 0, targets.as<const int32_t>(), targets.elements(), vocabulary, count_.as<int64_t>(),
           with_positions ? positions_.as<int32_t>() : nullptr, fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "target", -1, vocabulary - 1}));
  }
  const int64_t* value() const { return count_.as<const int64_t>(); }
  const int32_t* positions() const { return positions_.as<const int32_t>(); }

 private:
  Scratch count_, positions_;
};

// Rows of the tokens that count, side by side; zeros behind the last. A warp per row.
template <class T> __global__ void __launch_bounds__(kThreads) compact_kernel(const T* x, const int32_t* positions, int64_t rows, int64_t width, T* y) {
  const unsigned lane = threadIdx.x & 31u;
  for (int64_t r = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32; r < rows; r += int64_t(gridDim.x) * (kThreads / 32)) {
    const int32_t from = positions[r];
    for (int64_t i = lane; i < width; i += 32) y[r * width + i] = from < 0 ? store<T>(Accumulator<T>(0)) : x[from * width + i];
  }
}
// And back to where they came from.
template <class T> __global__ void __launch_bounds__(kThreads) spread_kernel(const T* x, const int32_t* positions, int64_t rows, int64_t width, T* y) {
  const unsigned lane = threadIdx.x & 31u;
  for (int64_t r = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32; r < rows; r += int64_t(gridDim.x) * (kThreads / 32)) {
    const int32_t to = positions[r];
    if (to < 0) continue;
    for (int64_t i = lane; i < width; i += 32) y[to * width + i] = x[r * width + i];
  }
}

// The largest element of a row and the sum of exp(x - largest): each thread runs through its own elements, then threads are put together in order.
template <class A> struct RowSum {
  A largest;
  double sum;
};
template <class T> __device__ RowSum<Accumulator<T>> row_sum(const T* row, int64_t n) {
  using A = Accumulator<T>;
  A m = A(-INFINITY), s = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const A x = load(row[i]);
    if (x > m) {
      s = s * exp(m - x) + A(1);
      m = x;
    } else if (x != A(-INFINITY)) s += exp(x - m);  // a NaN stays
  }
  const A largest = block_all<kThreads, Max>(m);
  const double sum = block_all<kThreads, Sum>(m == A(-INFINITY) && s == A(0) ? 0.0 : double(s) * double(exp(m - largest)));
  return {largest, sum};
}

// losses[row] = cross entropy of the token at positions[row], 0 for position -1; gradient = (softmax - one hot) / counted, unless absent. A block per row.
template <class T> __global__ void __launch_bounds__(kThreads)
loss_kernel(const Accumulator<T>* logits, int64_t vocabulary, const int32_t* targets, const int32_t* positions, const int64_t* counted, double* losses, T* gradient) {
  using A = Accumulator<T>;
  const int64_t r = blockIdx.x;
  const int32_t target = positions[r] < 0 ? -1 : targets[positions[r]];
  const A* row = logits + r * vocabulary;
  T* out = gradient ? gradient + r * vocabulary : nullptr;
  if (target < 0) {
    if (threadIdx.x == 0) losses[r] = 0;
    if (out)
      for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) out[i] = store<T>(A(0));
    return;
  }
  const RowSum<A> all = row_sum<A>(row, vocabulary);
  if (threadIdx.x == 0) losses[r] = double(all.largest) + log(all.sum) - double(row[target]);
  if (!out) return;
  const A each = A(1.0 / double(*counted)), factor = each / A(all.sum);
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) {
    const A e = exp(row[i] - all.largest);
    out[i] = store<T>(i == target ? (e / A(all.sum) - A(1)) * each : e * factor);
  }
}

template <class A> __global__ void __launch_bounds__(kThreads) mean_kernel(const double* losses, int64_t n, const int64_t* counted, A* loss) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) total += losses[i];
  total = block_all<kThreads, Sum>(total);
  if (threadIdx.x == 0) *loss = *counted > 0 ? A(total / double(*counted)) : A(0);
}

void project(const TensorView& hidden, const TensorView& weight, const TensorView& bias, const TensorView& logits) {
  GemmOptions o;
  o.transpose_b = true;
  TensorView own = bias;
  if (bias) own.shape = Shape{1, {bias.elements()}};
  gemm_ops.gemm(hidden, weight, own, logits, o);
}

void linear_cross_entropy(const LinearCrossEntropy& x) {
  DeviceState& state = state_of(x.hidden.device);
  const Device device = x.hidden.device;
  const int64_t vocabulary = x.weight.shape[0], d = x.weight.shape[1], tokens = x.targets.elements(), chunk = chunk_tokens(x.chunk, vocabulary, tokens);
  const Counted counted(state, x.targets, vocabulary, true);
  const bool gradients = x.d_hidden || x.d_weight || x.d_bias;
  const auto clear = [&](const TensorView& t) {
    if (t && t.bytes()) check(cudaMemsetAsync(t.data, 0, t.bytes(), state.compute), "clearing memory");
  };
  clear(x.d_hidden);
  if (tokens == 0) clear(x.d_weight), clear(x.d_bias);
  with_float(x.hidden.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Dtype narrow = DtypeOf<T>::value, wide = DtypeOf<A>::value;
    const Scratch logits(state, size_t(chunk * vocabulary) * sizeof(A)), dlogits(state, gradients ? size_t(chunk * vocabulary) * sizeof(T) : 1),
        rows(state, size_t(chunk * d) * sizeof(T)), row_gradients(state, x.d_hidden ? size_t(chunk * d) * sizeof(T) : 1),
        losses(state, size_t(std::max<int64_t>(1, tokens)) * sizeof(double));
    for (int64_t first = 0; first < tokens; first += chunk) {
      const int64_t n = std::min(chunk, tokens - first);
      const int32_t* positions = counted.positions() + first;
      const unsigned grid = grid_for(state, n, kThreads / 32);
      const TensorView hidden = matrix(rows.as<T>(), narrow, device, n, d), chunk_logits = matrix(logits.as<A>(), wide, device, n, vocabulary),
                       chunk_gradient = matrix(dlogits.as<T>(), narrow, device, n, vocabulary);
      launch(state, compact_kernel<T>, grid, kThreads, 0, x.hidden.as<const T>(), positions, n, d, rows.as<T>());
      project(hidden, x.weight, x.bias, chunk_logits);
      launch(state, loss_kernel<T>, dim3(unsigned(n)), kThreads, 0, logits.as<const A>(), vocabulary, x.targets.as<const int32_t>(), positions, counted.value(),
             losses.as<double>() + first, gradients ? dlogits.as<T>() : nullptr);
      if (x.d_hidden) {
        gemm_ops.gemm(chunk_gradient, x.weight, {}, matrix(row_gradients.as<T>(), narrow, device, n, d), {});
        launch(state, spread_kernel<T>, grid, kThreads, 0, row_gradients.as<const T>(), positions, n, d, x.d_hidden.as<T>());
      }
      if (x.d_weight) {
        GemmOptions o;
        o.transpose_a = true;
        o.accumulate = first > 0;
        gemm_ops.gemm(chunk_gradient, hidden, {}, x.d_weight, o);
      }
      if (x.d_bias) gemm_ops.column_sums(chunk_gradient, x.d_bias, first > 0);
    }
    launch(state, mean_kernel<A>, 1, kThreads, 0, losses.as<const double>(), tokens, counted.value(), x.loss.as<A>());
  });
}

template <class T> __global__ void __launch_bounds__(kThreads)
cross_entropy_kernel(const T* logits, int64_t vocabulary, const int32_t* targets, double* losses, Accumulator<T>* log_sum_exp) {
  const int64_t r = blockIdx.x;
  const int32_t target = targets[r];
  if (target < 0 || target >= vocabulary) {
    if (threadIdx.x == 0) losses[r] = log_sum_exp[r] = 0;
    return;
  }
  const T* row = logits + r * vocabulary;
  const auto all = row_sum(row, vocabulary);
  if (threadIdx.x != 0) return;
  const double lse = double(all.largest) + log(all.sum);
  log_sum_exp[r] = Accumulator<T>(lse);
  losses[r] = lse - double(load(row[target]));
}

void cross_entropy(const TensorView& logits, const TensorView& targets, const TensorView& loss, const TensorView& log_sum_exp) {
  DeviceState& state = state_of(logits.device);
  const int64_t n = logits.shape[0], vocabulary = logits.shape[1];
  const Counted counted(state, targets, vocabulary);
  const Scratch losses(state, size_t(std::max<int64_t>(1, n)) * sizeof(double));
  with_float(logits.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    launch(state, cross_entropy_kernel<T>, dim3(unsigned(n)), kThreads, 0, logits.as<const T>(), vocabulary, targets.as<const int32_t>(), losses.as<double>(),
           log_sum_exp.as<A>());
    launch(state, mean_kernel<A>, 1, kThreads, 0, losses.as<const double>(), n, counted.value(), loss.as<A>());
  });
}

template <class T> __global__ void __launch_bounds__(kThreads, 2) cross_entropy_backward_kernel(const T* logits, int64_t vocabulary, const int32_t* targets,
                                                                                            const Accumulator<T>* log_sum_exp, const Accumulator<T>* dloss,
                                                                                            const int64_t* counted, T* dlogits) {
  using A = Accumulator<T>;
  const int64_t r = blockIdx.x;
  const int32_t target = targets[r];
  const bool counts = target >= 0 && target < vocabulary;
  const A scale = A(double(*dloss) / double(*counted > 0 ? *counted : 1)), lse = log_sum_exp[r];
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) {
    const A p = counts ? exp(load(logits[r * vocabulary + i]) - lse) : A(0);
    dlogits[r * vocabulary + i] = store<T>((i == target ? p - A(1) : p) * scale);
  }
}

void cross_entropy_backward(const TensorView& logits, const TensorView& targets, const TensorView& log_sum_exp, const TensorView& dloss, const TensorView& dlogits) {
  DeviceState& state = state_of(logits.device);
  const int64_t n = logits.shape[0], vocabulary = logits.shape[1];
  const Counted counted(state, targets, vocabulary);
  with_float(logits.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    launch(state, cross_entropy_backward_kernel<T>, dim3(unsigned(n)), kThreads, 0, logits.as<const T>(), vocabulary, targets.as<const int32_t>(),
           log_sum_exp.as<const A>(), dloss.as<const A>(), counted.value(), dlogits.as<T>());
  });
}

// The largest element and the lowest index that has it; a NaN wins.
template <class A> struct Best {
  A value;
  int32_t index;
};
template <class A> __device__ inline Best<A> better(Best<A> a, Best<A> b) {
  const bool na = a.value != a.value, nb = b.value != b.value;
  if (na != nb) return na ? a : b;
  if (!na && a.value != b.value) return a.value > b.value ? a : b;
  return a.index <= b.index ? a : b;
}

template <class A> __global__ void __launch_bounds__(kThreads)
token_kernel(const A* logits, int64_t vocabulary, const int32_t* targets, double* log_probability, int32_t* greedy) {
  __shared__ Best<A> parts[kThreads];
  const int64_t r = blockIdx.x;
  const A* row = logits + r * vocabulary;
  Best<A> best{A(-INFINITY), 0x7fffffff};
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) best = better(best, Best<A>{row[i], int32_t(i)});
  parts[threadIdx.x] = best;
  __syncthreads();
  for (int width = kThreads / 2; width > 0; width /= 2) {
    if (int(threadIdx.x) < width) parts[threadIdx.x] = better(parts[threadIdx.x], parts[threadIdx.x + width]);
    __syncthreads();
  }
  const RowSum<A> all = row_sum<A>(row, vocabulary);
  if (threadIdx.x != 0) return;
  greedy[r] = parts[0].index;
  const int32_t target = targets[r];
  log_probability[r] = target < 0 || target >= vocabulary ? 0.0 : double(row[target]) - (double(all.largest) + log(all.sum));
}

void token_log_probabilities(const TensorView& hidden, const TensorView& weight, const TensorView& bias, const TensorView& targets, const TensorView& log_probability,
                             const TensorView& greedy, int64_t wanted_chunk) {
  DeviceState& state = state_of(hidden.device);
  const int64_t n = hidden.shape[0], vocabulary = weight.shape[0], chunk = chunk_tokens(wanted_chunk, vocabulary, n);
  const Counted counted(state, targets, vocabulary);
  with_float(hidden.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Scratch logits(state, size_t(chunk * vocabulary) * sizeof(A));
    for (int64_t first = 0; first < n; first += chunk) {
      const int64_t rows = std::min(chunk, n - first);
      project(rows_of(hidden, first, rows), weight, bias, matrix(logits.as<A>(), DtypeOf<A>::value, hidden.device, rows, vocabulary));
      launch(state, token_kernel<A>, dim3(unsigned(rows)), kThreads, 0, logits.as<const A>(), vocabulary, targets.as<const int32_t>() + first,
             log_probability.as<double>() + first, greedy.as<int32_t>() + first);
    }
  });
}

template <class T, class Y, bool kAdd> struct Scaled {
  const Accumulator<T>* factor;
  __device__ Y operator()(T x, Y y) const { return store<Y>(kAdd ? load(y) + load(x) * *factor : load(x) * *factor); }
  __device__ Y operator()(T x) const { return store<Y>(load(x) * *factor); }
};

void scale_gradient(const TensorView& x, const TensorView& factor, const TensorView& y, bool accumulate) {
  const DeviceState& state = state_of(x.device);
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const auto run = [&]<class Y>(Y* out) {
      const A* f = factor.as<const A>();
      if (accumulate) map(state, x.elements(), Scaled<T, Y, true>{f}, out, x.as<const T>(), static_cast<const Y*>(out));
      else map(state, x.elements(), Scaled<T, Y, false>{f}, out, x.as<const T>());
    };
    if (y.dtype == x.dtype) run(y.as<T>());
    else run(y.as<A>());
  });
}

void linear_logits(const TensorView& hidden, const TensorView& weight, const TensorView& bias, const TensorView& logits) { project(hidden, weight, bias, logits); }

}  // namespace

extern const LossOps loss_ops;
const LossOps loss_ops = {linear_cross_entropy, cross_entropy, cross_entropy_backward, token_log_probabilities, linear_logits, scale_gradient};

}  // namespace libmoe::cuda

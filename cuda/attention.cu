// The attention family: which kernels a call gets, and the small ones that all of them share.
#include "ops/attention.h"

#include "core/dispatch.h"
#include "cuda/core/attention_simt.h"
#include "cuda/core/block.h"

namespace libmoe::cuda {

// attention_cache.cu
void cache_write(const TensorView& pool, const TensorView& rows, const TensorView& table, const TensorView& offsets, const TensorView& lengths);
void cache_copy_block(const TensorView& pool, int64_t from, int64_t to);

namespace {

constexpr int kThreads = 256, kTokensPerSum = 128;

AttentionCall call_of(DeviceState& state, const TensorView& q, int64_t heads, int64_t value_width, const TensorView& offsets, const AttentionOptions& options) {
  AttentionCall c;
  c.tokens = q.shape[0];
  c.sequences = int(offsets.elements() - 1);
  c.query_heads = int(q.shape[1]);
  c.heads = int(heads);
  c.group = c.query_heads / c.heads;
  c.width = int(q.shape[2]);
  c.value_width = int(value_width);
  c.causal = options.causal;
  c.window = int(options.window);
  c.scale = options.scale;
  c.offsets = offsets.as<const int32_t>();
  c.bad_offset = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "attention: the sequence offsets, which begin with 0, never fall and end with the number of tokens,", 0,
                                    c.tokens});
  return c;
}

void run(DeviceState& state, Dtype dtype, const AttentionCall& call, const AttentionTensors& t) {
  if (takes_tensor_cores(dtype, call)) sm80::attention_forward(state, call, t);
  else simt::forward(state, dtype, call, t);
}

void attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
               const TensorView& log_sum, const AttentionOptions& options) {
  DeviceState& state = state_of(q.device);
  run(state, q.dtype, call_of(state, q, k.shape[1], v.shape[2], offsets, options), {q.data, k.data, v.data, sinks.data, out.data, log_sum.data});
}

// delta = sum of out * d_out. Bound by memory: reads both once. A warp per row.
template <class T, class A = Accumulator<T>>
__global__ void __launch_bounds__(kThreads) delta_kernel(int64_t rows, int width, const T* out, const T* d_out, A* delta) {
  const int lane = int(threadIdx.x) % 32;
  for (int64_t row = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32; row < rows; row += int64_t(gridDim.x) * (kThreads / 32)) {
    A sum = A(0);
    for (int d = lane; d < width; d += 32) sum = fma(A(load(out[row * width + d])), A(load(d_out[row * width + d])), sum);
    sum = warp_all<Sum>(sum);
    if (lane == 0) delta[row] = sum;
  }
}

// The sink of a head has the value 0, so its score gradient in a row is -weight * delta. Sums over 128 tokens each, a thread per head; then the sums of these.
template <class T, class A = Accumulator<T>>
__global__ void __launch_bounds__(kThreads) sink_parts_kernel(int64_t tokens, int heads, const T* sinks, const A* log_sum, const A* delta, A* parts) {
  const int64_t begin = int64_t(blockIdx.x) * kTokensPerSum, end = min(begin + kTokensPerSum, tokens);
  for (int h = int(threadIdx.x); h < heads; h += kThreads) {
    const A sink = A(load(sinks[h]));
    A sum = A(0);
    for (int64_t t = begin; t < end; ++t) sum = fma(exp(sink - log_sum[t * heads + h]), delta[t * heads + h], sum);
    parts[int64_t(blockIdx.x) * heads + h] = sum;
  }
}
template <class A> __global__ void __launch_bounds__(kThreads) sink_sums_kernel(int64_t parts, int heads, const A* part, A* d_sinks, bool add) {
  const int h = int(blockIdx.x) * kThreads + int(threadIdx.x);
  if (h >= heads) return;
  A sum = A(0);
  for (int64_t i = 0; i < parts; ++i) sum += part[i * heads + h];
  d_sinks[h] = (add ? d_sinks[h] : A(0)) - sum;
}

void attention_backward(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& offsets, const TensorView& sinks, const TensorView& out,
                        const TensorView& log_sum, const TensorView& d_out, const TensorView& dq, const TensorView& dk, const TensorView& dv,
                        const TensorView& d_sinks, bool add_sinks, const AttentionOptions& options) {
  DeviceState& state = state_of(q.device);
  const AttentionCall call = call_of(state, q, k.shape[1], v.shape[2], offsets, options);
  with_float(q.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t rows = call.tokens * call.query_heads, parts = blocks_for(call.tokens, kTokensPerSum);
    const Scratch delta(state, sizeof(A) * size_t(rows));
    launch(state, delta_kernel<T>, grid_for(state, rows, kThreads / 32), kThreads, 0, rows, call.value_width, out.as<const T>(), d_out.as<const T>(), delta.as<A>());
    const AttentionGradients t{q.data, k.data, v.data, d_out.data, log_sum.data, delta.as<A>(), dq.data, dk.data, dv.data};
    if (!takes_tensor_cores(q.dtype, call) || !sm80::attention_backward(state, call, t)) simt::backward(state, q.dtype, call, t);
    if (!d_sinks) return;
    const Scratch part(state, sizeof(A) * size_t(parts * call.query_heads));
    launch(state, sink_parts_kernel<T>, unsigned(parts), kThreads, 0, call.tokens, call.query_heads, sinks.as<const T>(), log_sum.as<const A>(),
           static_cast<const A*>(delta.as<A>()), part.as<A>());
    launch(state, sink_sums_kernel<A>, unsigned(blocks_for(call.query_heads, kThreads)), kThreads, 0, parts, call.query_heads, static_cast<const A*>(part.as<A>()),
           d_sinks.as<A>(), add_sinks);
  });
}

void attention_cached(const TensorView& q, const TensorView& keys, const TensorView& values, const TensorView& table, const TensorView& offsets,
                      const TensorView& lengths, const TensorView& sinks, const TensorView& out, const AttentionOptions& options) {
  DeviceState& state = state_of(q.device);
  AttentionCall call = call_of(state, q, keys.shape[2], values.shape[3], offsets, options);
  call.lengths = lengths.as<const int32_t>();
  call.table = table.as<const int32_t>();
  call.table_row = table.shape[1];
  call.pages = keys.shape[0];
  call.page_size = int(keys.shape[1]);
  call.bad_length = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "attention: the length of a sequence, which counts its new tokens too,", 0,
                                       call.table_row * call.page_size});
  call.bad_page = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "attention: a needed block in the block table", 0, call.pages - 1});
  run(state, q.dtype, call, {q.data, keys.data, values.data, sinks.data, out.data, nullptr});
}

}  // namespace

extern const AttentionOps attention_ops;
const AttentionOps attention_ops = {attention, attention_backward, attention_cached, cache_write, cache_copy_block};

}  // namespace libmoe::cuda

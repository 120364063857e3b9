// Cross entropy. The fused form is bound by three matrix products of 2 tokens * vocabulary * d operations: logits, d_hidden, d_weight.
//
// Logits exist for one chunk of tokens at a time. When gradients are wanted they are made in the forward pass while the chunk's logits are at hand:
// recomputing the logits in backward would add a fourth product (a third of the time on top), while what forward keeps instead is d_hidden, the size of
// the hidden states, and d_weight, which the parameter's gradient needs anyway. Backward then only multiplies by the gradient that comes in.
// Tokens that do not count are left out of all three products: in instruction data they are the majority.
#include "ops/loss.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/dispatch.h"
#include "core/thread_pool.h"
#include "cpu/pooled.h"
#include "cpu/row_index.h"
#include "cpu/simd/gemm_engine.h"
#include "cpu/simd/row.h"

namespace libmoe::cpu::LIBMOE_ISA {
namespace {

constexpr int64_t kPiece = 16384;
constexpr int64_t kChunkElements = int64_t(8) << 20;  // logits of a chunk: 32 MB of f32, enough rows for the products to run at full speed

int64_t chunk_tokens(int64_t wanted, int64_t vocabulary) {
  if (wanted > 0) return wanted;
  return std::clamp<int64_t>(kChunkElements / std::max<int64_t>(1, vocabulary) / 16 * 16, 64, 1024);
}

// Positions of the tokens that count.
std::vector<int32_t> counted_tokens(const TensorView& targets) {
  std::vector<int32_t> positions;
  const int32_t* t = targets.as<int32_t>();
  for (int64_t i = 0; i < targets.elements(); ++i)
    if (t[i] >= 0) positions.push_back(int32_t(i));
  return positions;
}

void clear(const TensorView& t) {
  if (t) parallel_ranges(int64_t(t.bytes()), int64_t(1) << 20, [&](int64_t begin, int64_t end) { std::memset(t.as<char>() + begin, 0, size_t(end - begin)); });
}

// logits [rows, vocabulary] = hidden [rows, d] weight^T + bias.
template <class T> void project(const T* hidden, int64_t rows, const TensorView& weight, const TensorView& bias, Accumulator<T>* logits) {
  Gemm g;
  g.a = hidden;
  g.b = weight.data;
  g.c = logits;
  g.m = rows;
  g.n = g.ldc = weight.shape[0];
  g.k = g.lda = g.ldb = weight.shape[1];
  g.transpose_b = true;
  g.bias = bias.data;
  g.in = DtypeOf<T>::value;
  g.out = DtypeOf<Accumulator<T>>::value;
  gemm(g);
}

// Cross entropy of one row, which becomes (softmax - one hot) * scale in type T at the row's own address. Returns the loss.
template <class T> double loss_and_gradient(Accumulator<T>* logits, int64_t n, int32_t target, Accumulator<T> scale) {
  using A = Accumulator<T>;
  const A m = row_max_or_nan(logits, n), at_target = logits[target], lowest = -std::numeric_limits<A>::infinity();
  const Vec<A> shift(m);
  const double sum = row_sum_f64<A>(n, [&](int64_t i, int count) {
    const Vec<A> e = exp(load_count(logits + i, count, lowest) - shift);
    store_count(logits + i, e, count);
    return e;
  });
  const A p_target = logits[target] / A(sum);
  const Vec<A> factor(scale / A(sum));
  T* gradient = reinterpret_cast<T*>(logits);  // no wider than what it replaces: the store never overtakes the load
  for_vectors<A>(n, [&](int64_t i, int count) { store_count(gradient + i, load_count(logits + i, count) * factor, count); });
  gradient[target] = T((p_target - A(1)) * scale);
  return double(m) + log_one<double>(sum) - double(at_target);
}

// bias [columns] += column sums of rows [count, columns], ascending.
template <class T> void add_columns(const T* rows, int64_t count, int64_t columns, int64_t stride, Accumulator<T>* sums) {
  using A = Accumulator<T>;
  parallel_ranges(columns, 512, [&](int64_t begin, int64_t end) {
    for_vectors<A>(end - begin, [&](int64_t k, int lanes) {
      Vec<A> s = Vec<A>::zero();
      for (int64_t r = 0; r < count; ++r) s += load_count(rows + r * stride + begin + k, lanes);
      store_count(sums + begin + k, load_count(sums + begin + k, lanes) + s, lanes);
    });
  });
}

template <class T> void write_mean(const TensorView& loss, const std::vector<double>& losses) {
  double total = 0;
  for (const double l : losses) total += l;
  *loss.as<Accumulator<T>>() = losses.empty() ? 0 : Accumulator<T>(total / double(losses.size()));
}

void linear_cross_entropy(const LinearCrossEntropy& x) {
  const int64_t vocabulary = x.weight.shape[0], d = x.weight.shape[1];
  const int32_t* targets = x.targets.as<int32_t>();
  check_rows(targets, x.targets.elements(), -1, vocabulary, "target");
  const std::vector<int32_t> tokens = counted_tokens(x.targets);
  const int64_t counted = int64_t(tokens.size()), chunk = std::min(chunk_tokens(x.chunk, vocabulary), std::max<int64_t>(1, counted));
  const bool gradients = x.d_hidden || x.d_weight || x.d_bias, all = counted == x.targets.elements();
  if (x.d_hidden && !all) clear(x.d_hidden);
  clear(x.d_bias);
  if (counted == 0) clear(x.d_weight);
  with_float(x.hidden.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    constexpr int64_t wider = int64_t(sizeof(A) / sizeof(T));
    const A scale = A(1.0 / double(std::max<int64_t>(1, counted)));
    Pooled<A> logits(chunk * vocabulary);
    Pooled<T> rows(all ? 0 : chunk * d), row_gradients(all || !x.d_hidden ? 0 : chunk * d);
    std::vector<double> losses(size_t(counted), 0.0);
    for (int64_t first = 0; first < counted; first += chunk) {
      const int64_t n = std::min(chunk, counted - first);
      const T* hidden = x.hidden.as<T>() + first * d;
      if (!all) {
        gather_row_bytes(x.hidden.as<char>(), tokens.data() + first, n, size_t(d) * sizeof(T), reinterpret_cast<char*>(rows.get()));
        hidden = rows.get();
      }
      project(hidden, n, x.weight, x.bias, logits.get());
      parallel_for(n, [&](int64_t r) {
        A* row = logits.get() + r * vocabulary;
        const int32_t target = targets[tokens[size_t(first + r)]];
        losses[size_t(first + r)] = gradients ? loss_and_gradient<T>(row, vocabulary, target, scale) : row_log_sum_exp(row, vocabulary) - double(row[target]);
      });
      const T* dlogits = reinterpret_cast<const T*>(logits.get());
      if (x.d_hidden) {
        Gemm g;  // dlogits [n, vocabulary] weight [vocabulary, d]
        g.a = dlogits;
        g.b = x.weight.data;
        g.c = all ? x.d_hidden.as<T>() + first * d : row_gradients.get();
        g.m = n;
        g.n = g.ldb = g.ldc = d;
        g.k = vocabulary;
        g.lda = vocabulary * wider;
        g.in = g.out = DtypeOf<T>::value;
        gemm(g);
        if (!all)
          for (int64_t r = 0; r < n; ++r) std::memcpy(x.d_hidden.as<T>() + tokens[size_t(first + r)] * d, row_gradients.get() + r * d, size_t(d) * sizeof(T));
      }
      if (x.d_weight) {
        Gemm g;  // dlogits^T [vocabulary, n] hidden [n, d]
        g.a = dlogits;
        g.b = hidden;
        g.c = x.d_weight.data;
        g.m = vocabulary;
        g.n = g.ldb = g.ldc = d;
        g.k = n;
        g.lda = vocabulary * wider;
        g.transpose_a = true;
        g.accumulate = first > 0;
        g.in = DtypeOf<T>::value;
        g.out = DtypeOf<A>::value;
        gemm(g);
      }
      if (x.d_bias) add_columns(dlogits, n, vocabulary, vocabulary * wider, x.d_bias.as<A>());
    }
    write_mean<T>(x.loss, losses);
  });
}

void cross_entropy(const TensorView& logits, const TensorView& targets, const TensorView& loss, const TensorView& log_sum_exp) {
  const int64_t n = logits.shape[0], vocabulary = logits.shape[1];
  const int32_t* t = targets.as<int32_t>();
  check_rows(t, n, -1, vocabulary, "target");
  with_float(logits.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const std::vector<int32_t> tokens = counted_tokens(targets);
    std::vector<double> by_token(size_t(n), 0.0), losses(tokens.size());
    parallel_ranges(n, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, vocabulary)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = logits.as<T>() + r * vocabulary;
        const double lse = t[r] < 0 ? 0.0 : row_log_sum_exp(row, vocabulary);
        log_sum_exp.as<A>()[r] = A(lse);
        if (t[r] >= 0) by_token[size_t(r)] = lse - double(A(row[t[r]]));
      }
    });
    for (size_t i = 0; i < tokens.size(); ++i) losses[i] = by_token[size_t(tokens[i])];
    write_mean<T>(loss, losses);
  });
}

void cross_entropy_backward(const TensorView& logits, const TensorView& targets, const TensorView& log_sum_exp, const TensorView& dloss, const TensorView& dlogits) {
  const int64_t n = logits.shape[0], vocabulary = logits.shape[1];
  const int32_t* t = targets.as<int32_t>();
  check_rows(t, n, -1, vocabulary, "target");
  const int64_t counted = int64_t(counted_tokens(targets).size());
  with_float(logits.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const A scale = A(double(*dloss.as<A>()) / double(std::max<int64_t>(1, counted)));
    parallel_ranges(n, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, vocabulary)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = logits.as<T>() + r * vocabulary;
        T* out = dlogits.as<T>() + r * vocabulary;
        if (t[r] < 0) {
          std::memset(static_cast<void*>(out), 0, size_t(vocabulary) * sizeof(T));
          continue;
        }
        const Vec<A> lse(log_sum_exp.as<A>()[r]), factor(scale);
        for_vectors<A>(vocabulary, [&](int64_t i, int count) { store_count(out + i, exp(load_count(row + i, count) - lse) * factor, count); });
        const A p = exp(Vec<A>(A(row[t[r]])) - lse).v[0];
        out[t[r]] = T((p - A(1)) * scale);
      }
    });
  });
}

void token_log_probabilities(const TensorView& hidden, const TensorView& weight, const TensorView& bias, const TensorView& targets, const TensorView& log_probability,
                             const TensorView& greedy, int64_t wanted_chunk) {
  const int64_t n = hidden.shape[0], vocabulary = weight.shape[0], d = weight.shape[1], chunk = std::min(chunk_tokens(wanted_chunk, vocabulary), std::max<int64_t>(1, n));
  const int32_t* t = targets.as<int32_t>();
  check_rows(t, n, -1, vocabulary, "target");
  with_float(hidden.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    Pooled<A> logits(chunk * vocabulary);
    for (int64_t first = 0; first < n; first += chunk) {
      const int64_t rows = std::min(chunk, n - first);
      project(hidden.as<T>() + first * d, rows, weight, bias, logits.get());
      parallel_for(rows, [&](int64_t r) {
        const A* row = logits.get() + r * vocabulary;
        const int32_t target = t[first + r];
        log_probability.as<double>()[first + r] = target < 0 ? 0.0 : double(row[target]) - row_log_sum_exp(row, vocabulary);
        greedy.as<int32_t>()[first + r] = row_argmax(row, vocabulary);
      });
    }
  });
}

void linear_logits(const TensorView& hidden, const TensorView& weight, const TensorView& bias, const TensorView& logits) {
  with_float(hidden.dtype, [&]<class T>() { project(hidden.as<T>(), hidden.shape[0], weight, bias, logits.as<Accumulator<T>>()); });
}

void scale_gradient(const TensorView& x, const TensorView& factor, const TensorView& y, bool accumulate) {
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    const Vec<A> f(*factor.as<A>());
    const T* in = x.as<T>();
    const auto run = [&]<class Y>(Y* out) {
      parallel_ranges(x.elements(), kPiece, [&](int64_t begin, int64_t end) {
        for_vectors<A>(end - begin, [&](int64_t k, int count) {
          const Vec<A> v = load_count(in + begin + k, count) * f;
          store_count(out + begin + k, accumulate ? load_count(out + begin + k, count) + v : v, count);
        });
      });
    };
    if (y.dtype == x.dtype) run(y.as<T>());
    else run(y.as<A>());
  });
}

}  // namespace

extern const LossOps loss_ops;
const LossOps loss_ops = {linear_cross_entropy, cross_entropy, cross_entropy_backward, token_log_probabilities, linear_logits, scale_gradient};

}  // namespace libmoe::cpu::LIBMOE_ISA

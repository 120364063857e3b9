// Bound by memory: x is read and y written once (floor in bf16: 4 bytes an element); the table row of a token serves all its heads from cache. A block has one token
// or, where heads are few, several; a thread turns the pairs of one or two packs of 16 bytes.
#include "ops/rotary.h"

#include <bit>

#include "core/dispatch.h"
#include "cuda/core/convert.h"
#include "cuda/core/fault.h"

namespace libmoe::cuda {
namespace {

constexpr int kThreads = 256;

struct Layout {
  int64_t tokens = 0, table_rows = 0;
  int heads = 0, width = 0, pairs = 0;
};

// P pairs at a time; what is not turned is copied C elements at a time.
template <int P, int C, bool kInterleaved, class T>
__global__ void __launch_bounds__(kThreads) rotary_kernel(const T* x, const Accumulator<T>* cosine, const Accumulator<T>* sine, const int32_t* positions,
                                                          Layout l, Accumulator<T> sign, T* y, FaultSlot fault) {
  using A = Accumulator<T>;
  const int turned = l.pairs / P, units = turned + (l.width - 2 * l.pairs) / C, items = l.heads * units;
  for (int64_t t = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; t < l.tokens; t += int64_t(gridDim.x) * blockDim.y) {
    const int64_t position = positions[t];
    if (position < 0 || position >= l.table_rows) {
      if (threadIdx.x == 0) fault.report(t);
      continue;
    }
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
      const int head = item / units, unit = item - head * units;
      const int64_t row = (t * l.heads + head) * l.width;
      if (unit >= turned) {
        const int64_t at = row + 2 * l.pairs + (unit - turned) * C;
        *reinterpret_cast<Pack<T, C>*>(y + at) = *reinterpret_cast<const Pack<T, C>*>(x + at);
        continue;
      }
      const auto c = *reinterpret_cast<const Pack<A, P>*>(cosine + position * l.pairs + unit * P);
      const auto s = *reinterpret_cast<const Pack<A, P>*>(sine + position * l.pairs + unit * P);
      if constexpr (kInterleaved) {
        const int64_t at = row + unit * 2 * P;
        Pack<T, 2 * P> p;
        if constexpr (P == 1) p = {{x[at], x[at + 1]}};  // at any address
        else p = *reinterpret_cast<const Pack<T, 2 * P>*>(x + at);
#pragma unroll
        for (int j = 0; j < P; ++j) {
          const A a = load(p.at[2 * j]), b = load(p.at[2 * j + 1]), sn = s.at[j] * sign;
          p.at[2 * j] = store<T>(a * c.at[j] - b * sn);
          p.at[2 * j + 1] = store<T>(b * c.at[j] + a * sn);
        }
        if constexpr (P == 1) {
          y[at] = p.at[0];
          y[at + 1] = p.at[1];
        } else {
          *reinterpret_cast<Pack<T, 2 * P>*>(y + at) = p;
        }
      } else {
        const int64_t at = row + unit * P;
        auto p = *reinterpret_cast<const Pack<T, P>*>(x + at), q = *reinterpret_cast<const Pack<T, P>*>(x + at + l.pairs);
#pragma unroll
        for (int j = 0; j < P; ++j) {
          const A a = load(p.at[j]), b = load(q.at[j]), sn = s.at[j] * sign;
          p.at[j] = store<T>(a * c.at[j] - b * sn);
          q.at[j] = store<T>(b * c.at[j] + a * sn);
        }
        *reinterpret_cast<Pack<T, P>*>(y + at) = p;
        *reinterpret_cast<Pack<T, P>*>(y + at + l.pairs) = q;
      }
    }
  }
}

void rotary(const TensorView& x, const TensorView& cosine, const TensorView& sine, const TensorView& positions, const TensorView& y, bool interleaved, bool inverse) {
  DeviceState& state = state_of(y.device);
  const Layout l{x.shape[0], cosine.shape[0], int(x.shape[1]), int(x.shape[2]), int(cosine.shape[1])};
  const FaultSlot fault = fault_slot(state, {"ERR_LIBMOE_ARGUMENT", "rotary: position of a token", 0, l.table_rows - 1});
  with_float(x.dtype, [&]<class T>() {
    using A = Accumulator<T>;
    constexpr int C = kPack<T>;
    const auto run = [&]<int P, int kCopied, bool kInterleaved>() {
      const int64_t items = int64_t(l.heads) * (l.pairs / P + (l.width - 2 * l.pairs) / kCopied);
      const unsigned across = unsigned(std::bit_ceil(uint64_t(std::clamp<int64_t>(items, 1, kThreads)))), down = kThreads / across;
      launch(state, rotary_kernel<P, kCopied, kInterleaved, T>, grid_for(state, l.tokens, down), dim3(across, down), 0, x.as<const T>(), cosine.as<const A>(),
             sine.as<const A>(), positions.as<const int32_t>(), l, inverse ? A(-1) : A(1), y.as<T>(), fault);
    };
    const bool aligned = l.width % C == 0 && aligned_to(x.data, 16) && aligned_to(y.data, 16) && aligned_to(cosine.data, 16) && aligned_to(sine.data, 16);
    if (interleaved) {
      if (aligned && 2 * l.pairs % C == 0) run.template operator()<C / 2, C, true>();
      else run.template operator()<1, 1, true>();
    } else {
      if (aligned && l.pairs % C == 0) run.template operator()<C, C, false>();
      else run.template operator()<1, 1, false>();
    }
  });
}

}  // namespace

extern const RotaryOps rotary_ops;
const RotaryOps rotary_ops = {rotary};

}  // namespace libmoe::cuda

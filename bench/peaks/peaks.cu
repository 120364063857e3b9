// What this card can do at most, for the targets that are shares of it, in the run that measures ours: mma.sync out of registers alone, a copy through
// memory, and what the fixed order of the combine costs against atomic additions in any order. Not part of the library: built by scripts/verify-on-gpu.
// Prints one JSON object. Medians of several samples, each of calls that fill about 20 ms between two events.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/core/ptx.h"

namespace {

void check(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return;
  std::fprintf(stderr, "ERR_LIBMOE_CUDA: %s: %s\n", what, cudaGetErrorString(e));
  std::exit(1);
}

template <class F> double seconds(F&& run) {
  cudaEvent_t from, to;
  check(cudaEventCreate(&from), "event");
  check(cudaEventCreate(&to), "event");
  const auto timed = [&](int calls) {
    check(cudaEventRecord(from), "event");
    for (int i = 0; i < calls; ++i) run();
    check(cudaEventRecord(to), "event");
    check(cudaEventSynchronize(to), "timing");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, from, to), "timing");
    return ms / 1e3 / calls;
  };
  timed(2);
  const int calls = int(std::clamp(0.02 / std::max(timed(1), 1e-6), 1.0, 2000.0));
  std::vector<double> samples;
  for (int i = 0; i < 9; ++i) samples.push_back(timed(calls));
  std::sort(samples.begin(), samples.end());
  check(cudaEventDestroy(from), "event");
  check(cudaEventDestroy(to), "event");
  return samples[samples.size() / 2];
}

// 2 * 16 * 8 * 16 FLOPs per warp and mma.sync; nothing but registers. Independent sums per warp, as many as a 64 x 32 warp tile has, so that the pipeline is full.
// The operands are random bits of small numbers, as constant ones let the clock rise.
constexpr int kSums = 16, kLoops = 2048;
__global__ void __launch_bounds__(256) mma_kernel(uint32_t seed, float* out) {
  uint32_t a[4][4], b[4][2];
  float d[kSums][4] = {};
  uint32_t h = seed + threadIdx.x * 2654435761u + blockIdx.x * 40503u;
  const auto next = [&] {  // two bf16 in (-1, 1)
    h ^= h << 13;
    h ^= h >> 17;
    h ^= h << 5;
    return (h & 0x807f807fu) | 0x3f003f00u;
  };
#pragma unroll
  for (auto& f : a)
    for (auto& x : f) x = next();
#pragma unroll
  for (auto& f : b)
    for (auto& x : f) x = next();
#pragma unroll 1
  for (int loop = 0; loop < kLoops; ++loop)
#pragma unroll
    for (int i = 0; i < kSums; ++i) libmoe::cuda::ptx::mma_bf16(d[i], a[i / 4], b[i % 4][0], b[i % 4][1]);
  float sum = 0;
#pragma unroll
  for (auto& s : d) sum += s[0] + s[1] + s[2] + s[3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;  // or nothing would be computed
}

__global__ void __launch_bounds__(256) copy_kernel(const uint4* from, uint4* to, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) to[i] = from[i];
}

// The combine of a layer in a fixed order: every token sums its k rows of y, ascending, and writes its row once; as cuda/grouped_ffn.cu does. 8 columns a thread.
__device__ void add8(float (&sum)[8], const uint4& bits, float w) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum[2 * i] = fmaf(w, __uint_as_float(words[i] << 16), sum[2 * i]);
    sum[2 * i + 1] = fmaf(w, __uint_as_float(words[i] & 0xffff0000u), sum[2 * i + 1]);
  }
}
__device__ uint32_t pair(float a, float b) {
  const __nv_bfloat162 p = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&p);
}

__global__ void __launch_bounds__(256) ordered_kernel(int64_t tokens, int k, int chunks, const uint4* y, const int* place, const float* weights, uint4* out) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < tokens * chunks; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t t = i / chunks, c = i % chunks;
    float sum[8] = {};
    for (int j = 0; j < k; ++j) add8(sum, y[int64_t(place[t * k + j]) * chunks + c], weights[t * k + j]);
    out[i] = make_uint4(pair(sum[0], sum[1]), pair(sum[2], sum[3]), pair(sum[4], sum[5]), pair(sum[6], sum[7]));
  }
}

// The same without an order: every row of y adds itself to its token's f32 sums, which begin at zero and are rounded at the end.
__global__ void __launch_bounds__(256) scatter_kernel(int64_t rows, int k, int chunks, const uint4* y, const int* slot, const float* weights, float* sums) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * chunks; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t r = i / chunks, c = i % chunks;
    const int s = slot[r];
    float own[8] = {};
    add8(own, y[i], weights[s]);
    float* to = sums + (int64_t(s / k) * chunks + c) * 8;
#pragma unroll
    for (int e = 0; e < 8; ++e) atomicAdd(to + e, own[e]);
  }
}
__global__ void __launch_bounds__(256) round_kernel(int64_t n, const float4* sums, uint4* out) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const float4 a = sums[2 * i], b = sums[2 * i + 1];
    out[i] = make_uint4(pair(a.x, a.y), pair(a.z, a.w), pair(b.x, b.y), pair(b.z, b.w));
  }
}

template <class T> T* room(size_t count) {
  void* p = nullptr;
  check(cudaMalloc(&p, count * sizeof(T)), "memory");
  return static_cast<T*>(p);
}
template <class T> T* sent(const std::vector<T>& values) {
  T* p = room<T>(values.size());
  check(cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  return p;
}

struct Combine {
  const char* name;
  int tokens, d, k;
};

void combine(const Combine& c, int blocks, bool last) {
  const int64_t slots = int64_t(c.tokens) * c.k, chunks = c.d / 8;
  uint32_t h = 7;
  const auto next = [&] {
    h ^= h << 13;
    h ^= h >> 17;
    h ^= h << 5;
    return h;
  };
  std::vector<int> place(slots), slot(slots);
  for (int64_t i = 0; i < slots; ++i) place[i] = int(i);
  for (int64_t i = slots - 1; i > 0; --i) std::swap(place[i], place[next() % (i + 1)]);
  for (int64_t i = 0; i < slots; ++i) slot[place[i]] = int(i);
  std::vector<float> weights(slots);
  for (float& w : weights) w = float(next() & 1023) / 1024;
  std::vector<uint16_t> y(slots * c.d);
  for (uint16_t& v : y) v = uint16_t((next() & 0x807f) | 0x3f00);
  const int *d_place = sent(place), *d_slot = sent(slot);
  const float* d_weights = sent(weights);
  const auto* d_y = reinterpret_cast<const uint4*>(sent(y));
  uint4 *out = room<uint4>(c.tokens * chunks), *other = room<uint4>(c.tokens * chunks);
  float* sums = room<float>(int64_t(c.tokens) * c.d);
  const auto ordered = [&] { ordered_kernel<<<blocks, 256>>>(c.tokens, c.k, int(chunks), d_y, d_place, d_weights, out); };
  const auto any = [&] {
    check(cudaMemsetAsync(sums, 0, int64_t(c.tokens) * c.d * 4), "clearing");
    scatter_kernel<<<blocks, 256>>>(slots, c.k, int(chunks), d_y, d_slot, d_weights, sums);
    round_kernel<<<blocks, 256>>>(c.tokens * chunks, reinterpret_cast<const float4*>(sums), other);
  };
  ordered();
  any();
  std::vector<uint16_t> a(int64_t(c.tokens) * c.d), b(a.size());
  check(cudaMemcpy(a.data(), out, a.size() * 2, cudaMemcpyDeviceToHost), "the combine");
  check(cudaMemcpy(b.data(), other, b.size() * 2, cudaMemcpyDeviceToHost), "the combine with atomics");
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto wide = [](uint16_t x) {
      const uint32_t bits = uint32_t(x) << 16;
      float f;
      __builtin_memcpy(&f, &bits, 4);
      return double(f);
    };
    worst = std::max(worst, std::abs(wide(a[i]) - wide(b[i])) / (1 + std::abs(wide(a[i]))));
  }
  if (!(worst < 0.01)) {
    std::fprintf(stderr, "ERR_LIBMOE_STATE: both combines of %s should give the same, they differ by %g\n", c.name, worst);
    std::exit(1);
  }
  std::printf("    {\"name\": \"%s\", \"orderedSeconds\": %.9g, \"atomicSeconds\": %.9g}%s\n", c.name, seconds(ordered), seconds(any), last ? "" : ",");
  for (const void* p : {(const void*)d_place, (const void*)d_slot, (const void*)d_weights, (const void*)d_y, (const void*)out, (const void*)other, (const void*)sums})
    check(cudaFree(const_cast<void*>(p)), "freeing");
}

}  // namespace

int main(int, char** arguments) {
  const bool toy = arguments[1] != nullptr;  // any argument: small sizes
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, 0), "the device");
  const int blocks = p.multiProcessorCount * 8;
  std::printf("{\n  \"device\": \"%s\",\n", p.name);

  float* sink = room<float>(size_t(blocks) * 256);
  const double flops = 2.0 * 16 * 8 * 16 * kSums * kLoops * (256 / 32) * blocks;
  const double mma = seconds([&] { mma_kernel<<<blocks, 256>>>(12345, sink); });
  check(cudaGetLastError(), "mma.sync");
  std::printf("  \"mmaSyncTflops\": %.6g,\n", flops / mma / 1e12);

  const size_t bytes = toy ? 1 << 20 : size_t(2) << 30;
  char *from = room<char>(bytes), *to = room<char>(bytes);
  check(cudaMemset(from, 1, bytes), "clearing");
  const double engine = seconds([&] { check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice), "copy"); });
  const double kernel = seconds([&] { copy_kernel<<<blocks, 256>>>(reinterpret_cast<const uint4*>(from), reinterpret_cast<uint4*>(to), int64_t(bytes / 16)); });
  check(cudaGetLastError(), "copy kernel");
  // Bytes read and bytes written.
  std::printf("  \"copyGigabytes\": %.6g,\n  \"copyKernelGigabytes\": %.6g,\n  \"combine\": [\n", 2.0 * bytes / engine / 1e9, 2.0 * bytes / kernel / 1e9);
  check(cudaFree(from), "freeing");
  check(cudaFree(to), "freeing");
  const std::vector<Combine> layers = toy ? std::vector<Combine>{{"toy", 96, 64, 2}}
                                          : std::vector<Combine>{{"154M", 16384, 512, 8}, {"660M", 16384, 1024, 8}, {"A", 4096, 512, 2}, {"B", 2048, 1024, 8}, {"OLMoE", 16384, 2048, 8}, {"Qwen3", 32768, 2048, 8}};
  for (size_t i = 0; i < layers.size(); ++i) combine(layers[i], blocks, i + 1 == layers.size());
  std::printf("  ]\n}\n");
}

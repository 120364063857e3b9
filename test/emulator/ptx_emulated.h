#pragma once
// The instructions of cuda/core/ptx.h, emulated. Copies of cp.async happen only when they are waited for, so that a missing wait shows as a NaN pattern.
#include <cuda_runtime.h>

#include <bit>
#include <cstring>
#include <vector>

#include "core/dtype.h"

namespace libmoe::cuda::ptx {

inline uint16_t bf16_bits(float x) { return bf16(x).bits; }
inline uint16_t f16_bits(float x) { return f16(x).bits; }
inline float from_f16_bits(uint16_t bits) {
  f16 x;
  x.bits = bits;
  return float(x);
}
inline float exp2_approximate(float x) { return std::exp2(x); }
inline uint32_t pack_bf16(float low, float high) { return uint32_t(bf16(high).bits) << 16 | bf16(low).bits; }

// Addresses are offsets into the block's dynamic shared memory.
inline uint32_t shared_address(const void* p) { return uint32_t(static_cast<const unsigned char*>(p) - emulator::dynamic_shared()); }
inline unsigned char* shared_at(uint32_t address, size_t bytes) {
  if (address + bytes > emulator::dynamic_shared_size()) emulator::fault("shared memory is accessed beyond its end");
  return emulator::dynamic_shared() + address;
}

void cp_async(uint32_t to, const void* from, bool valid, uint32_t bytes);
inline void cp_async_16(uint32_t to, const void* from, bool valid) { cp_async(to, from, valid, 16); }
inline void cp_async_8(uint32_t to, const void* from, bool valid) { cp_async(to, from, valid, 8); }
inline void cp_async_4(uint32_t to, const void* from, bool valid) { cp_async(to, from, valid, 4); }
void cp_async_commit();
void cp_async_wait_for(int groups);
template <int N> inline void cp_async_wait() { cp_async_wait_for(N); }

// A copy under way, for ptx90_emulated.cpp, where barriers count them.
struct AsyncCopy {
  uint32_t to;
  const void* from;
  bool valid;
  uint32_t bytes;
};
void perform(const AsyncCopy& copy);
std::vector<AsyncCopy> take_async_copies();  // all of the running thread

void ldmatrix(uint32_t (&r)[4], uint32_t address, bool transposed);
inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) { ldmatrix(r, address, false); }
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], uint32_t address) { ldmatrix(r, address, true); }

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

}  // namespace libmoe::cuda::ptx

#pragma once
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit words as a pure function of
// (seed, stream, counter), so that a random number does not depend on threads, order or what was drawn before.
#include <array>
#include <cstdint>

#ifdef __CUDACC__
#define LIBMOE_HOST_DEVICE __host__ __device__
#else
#define LIBMOE_HOST_DEVICE
#endif

namespace libmoe {

LIBMOE_HOST_DEVICE inline std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t counter) {
  uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = uint32_t(stream), c3 = uint32_t(stream >> 32);
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// Uniform in [0, 1) with 24 bits, and with 53.
LIBMOE_HOST_DEVICE inline float uniform_f32(uint32_t word) { return float(word >> 8) * 0x1p-24f; }
LIBMOE_HOST_DEVICE inline double uniform_f64(uint32_t high, uint32_t low) { return double((uint64_t(high) << 21) ^ (low >> 11)) * 0x1p-53; }

}  // namespace libmoe

#pragma once
// The instructions of cuda/core/ptx90.h, emulated. Everything asynchronous happens as late as the manual allows: copies when somebody looks at the barrier
// that counts them, products when their group is waited for. With LIBMOE_EMULATOR_ORDER every second copy happens at once instead, so that a stage freed too
// early shows as well.
#include <cuda.h>

#include "ptx_emulated.h"

namespace libmoe::cuda::ptx {

void mbarrier_init(uint32_t barrier, uint32_t arrivals);
inline void fence_mbarrier_init() {}
void mbarrier_arrive(uint32_t barrier);
void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes);
bool mbarrier_try_wait(uint32_t barrier, uint32_t parity);
inline void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) emulator::yield();
}
// From here on this thread's copies belong to the barrier; cp_async_wait knows them no longer.
void cp_async_arrive(uint32_t barrier);
void fence_async_proxy();

void copy_box(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x, int y, int z);
inline void prefetch_map(const CUtensorMap*) {}

template <int N> inline void registers_down() {}
template <int N> inline void registers_up() {}

void multiply(float* d, int n, bool mn_major_a, bool mn_major_b, uint64_t a, uint64_t b);
template <bool kMnMajorA, bool kMnMajorB, int N> inline void wgmma(float (&d)[N], uint64_t a, uint64_t b) {
  multiply(d, N * 2, kMnMajorA, kMnMajorB, a, b);
}
inline void wgmma_fence() {}
void wgmma_commit();
void wgmma_wait_for(int groups);
template <int N> inline void wgmma_wait() { wgmma_wait_for(N); }
template <int N> inline void pin(float (&)[N]) {}

}  // namespace libmoe::cuda::ptx

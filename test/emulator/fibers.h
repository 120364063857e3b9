#pragma once
// One CUDA block on one processor thread: every CUDA thread is a fiber with a stack of its own, and control changes hands only where a thread
// waits for others. LIBMOE_EMULATOR_ORDER=<seed> runs ready threads in a random order, which brings out missing barriers.
#include <cstddef>
#include <cstdint>
#include <string>

namespace emulator {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

struct Thread {
  Dim index;
  unsigned linear = 0;  // warps are 32 consecutive ones
  unsigned lane() const { return linear & 31u; }
  unsigned warp() const { return linear >> 5; }
};

// What the running thread sees; valid inside a kernel only.
extern const Thread* current;
extern Dim block_index, block_dim, grid_dim;

// Dynamic shared memory of the running block, 1024-byte aligned, filled with NaN patterns when the block begins.
unsigned char* dynamic_shared();
size_t dynamic_shared_size();

// A different number for every block that has run in this process.
uint64_t block_number();

// Stops the kernel: the launch reports this text as an error of the device.
[[noreturn]] void fault(const char* text);

// Waits until `threads` threads (0: all that have not ended) have come to barrier `id`.
void barrier(int id, unsigned threads);

// Waits for all lanes of `mask`; the last one to come calls body(payloads) once, with the payload of every lane. `kind` must be the same for all lanes.
using CollectiveBody = void (*)(void* const payloads[32], uint32_t mask);
void collective(const char* kind, uint32_t mask, void* payload, CollectiveBody body);
// The same over the 128 threads of a warp group (wgmma).
using GroupBody = void (*)(void* const payloads[128]);
void group_collective(const char* kind, void* payload, GroupBody body);

// Lets others run. A kernel in which nothing but this happens for long has a deadlock and is stopped.
void yield();
// Says that something happened for which a thread may be waiting with yield().
void progress();

// Runs a whole grid; grids of several host threads one after the other. `entry(arguments)` is called by every thread. Returns the text of the fault, or nothing.
std::string run_grid(Dim grid, Dim block, size_t shared_bytes, void (*entry)(void*), void* arguments);

}  // namespace emulator

#include "fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#error "the CUDA emulator is for x86-64"
#endif

// switch_stack(&save, load): stores the stack pointer of this fiber in *save and goes on with `load`.
extern "C" void libmoe_emulator_switch(void** save, void* load);
asm(R"(
.text
.globl libmoe_emulator_switch
.type libmoe_emulator_switch,@function
libmoe_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size libmoe_emulator_switch,.-libmoe_emulator_switch
)");

namespace emulator {

const Thread* current = nullptr;
Dim block_index, block_dim, grid_dim;

namespace {

constexpr size_t kStack = size_t(256) << 10, kGuard = 4096;
constexpr int kBarriers = 16;
constexpr long kDeadlock = 20000;  // rounds of yields without progress

enum class State : uint8_t { ready, waiting, ended };

struct Fiber : Thread {
  void* stack_pointer = nullptr;
  State state = State::ended;
};
struct Barrier {
  unsigned arrived = 0, wanted = 0;
  std::vector<unsigned> waiting;
};
struct Meeting {
  const char* kind = nullptr;
  uint32_t mask = 0, arrived = 0;
  void* payloads[32];
};
struct GroupMeeting {
  const char* kind = nullptr;
  unsigned arrived = 0;
  void* payloads[128];
};

std::mutex one_grid;
std::vector<Fiber> fibers;
std::vector<unsigned> ready;  // a ring in use from `head`
size_t head = 0;
Barrier barriers[kBarriers];
std::vector<std::vector<Meeting>> meetings;  // per warp
std::vector<GroupMeeting> groups;            // per warp group
void* scheduler_stack = nullptr;
char* stacks = nullptr;
size_t stack_count = 0;
unsigned running = 0;
unsigned alive = 0;
long idle_yields = 0;
bool faulted = false;
std::string fault_text;
void (*kernel_entry)(void*) = nullptr;
void* kernel_arguments = nullptr;
unsigned char* shared = nullptr;
size_t shared_capacity = 0, shared_size = 0;
uint64_t order_seed = 0, block_count = 0;
bool random_order = false;

uint64_t next_random() {
  order_seed ^= order_seed << 13;
  order_seed ^= order_seed >> 7;
  order_seed ^= order_seed << 17;
  return order_seed;
}

void make_ready(unsigned i) {
  fibers[i].state = State::ready;
  ready.push_back(i);
}

void leave() {
  Fiber& self = fibers[running];
  libmoe_emulator_switch(&self.stack_pointer, scheduler_stack);
}

void wait() {
  fibers[running].state = State::waiting;
  leave();
}

void release_barrier(Barrier& b) {
  for (unsigned i : b.waiting)
    if (fibers[i].state == State::waiting) make_ready(i);
  b.waiting.clear();
  b.arrived = 0;
  b.wanted = 0;
  progress();
}

// Threads that have ended count as having come to a barrier of all threads.
void recheck_barriers() {
  for (Barrier& b : barriers)
    if (b.arrived > 0 && b.wanted == 0 && b.arrived >= alive) release_barrier(b);
}

void first_frame() {
  kernel_entry(kernel_arguments);
  fibers[running].state = State::ended;
  --alive;
  recheck_barriers();
  leave();
  __builtin_unreachable();
}

void prepare(unsigned i) {
  char* top = stacks + size_t(i + 1) * (kStack + kGuard);
  void** sp = reinterpret_cast<void**>(top - 64);
  *--sp = nullptr;  // a return address for the debugger; the stack is 8 off 16 at entry, as after a call
  *--sp = reinterpret_cast<void*>(&first_frame);
  for (int r = 0; r < 6; ++r) *--sp = nullptr;
  fibers[i].stack_pointer = sp;
}

void reserve_stacks(size_t count) {
  if (count <= stack_count) return;
  if (stacks) munmap(stacks, stack_count * (kStack + kGuard));
  stacks = static_cast<char*>(mmap(nullptr, count * (kStack + kGuard), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  for (size_t i = 0; i < count; ++i) mprotect(stacks + i * (kStack + kGuard), kGuard, PROT_NONE);
  stack_count = count;
}

std::string place(const Thread& t) {
  char text[160];
  std::snprintf(text, sizeof text, "block (%u, %u, %u) thread (%u, %u, %u)", block_index.x, block_index.y, block_index.z, t.index.x, t.index.y, t.index.z);
  return text;
}

void run_block(Dim block) {
  const unsigned n = block.x * block.y * block.z;
  alive = n;
  ++block_count;
  ready.clear();
  head = 0;
  idle_yields = 0;
  for (Barrier& b : barriers) {
    b.arrived = b.wanted = 0;
    b.waiting.clear();
  }
  for (auto& m : meetings) m.clear();
  for (auto& g : groups) g = GroupMeeting{};
  if (shared_size) std::memset(shared, 0xff, shared_size);
  for (unsigned i = 0; i < n; ++i) {
    Fiber& f = fibers[i];
    f.linear = i;
    f.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    prepare(i);
    make_ready(i);
  }
  while (head < ready.size() && !faulted) {
    if (random_order) std::swap(ready[head], ready[head + next_random() % (ready.size() - head)]);
    running = ready[head++];
    if (head > 4096 && head * 2 > ready.size()) {
      ready.erase(ready.begin(), ready.begin() + long(head));
      head = 0;
    }
    current = &fibers[running];
    libmoe_emulator_switch(&scheduler_stack, fibers[running].stack_pointer);
  }
  if (!faulted && alive > 0) {
    faulted = true;
    fault_text = "deadlock: " + std::to_string(alive) + " threads wait for others that have ended or wait elsewhere";
    for (unsigned i = 0; i < n; ++i)
      if (fibers[i].state == State::waiting) {
        fault_text += ", the first being " + place(fibers[i]);
        break;
      }
    for (const auto& list : meetings)
      for (const Meeting& m : list)
        if (m.arrived) {
          char text[120];
          std::snprintf(text, sizeof text, "; %s of mask %08x has seen %08x", m.kind, m.mask, m.arrived);
          fault_text += text;
        }
  }
  current = nullptr;
}

}  // namespace

unsigned char* dynamic_shared() { return shared; }
size_t dynamic_shared_size() { return shared_size; }
uint64_t block_number() { return block_count; }

void fault(const char* text) {
  faulted = true;
  fault_text = std::string(text) + " in " + place(fibers[running]);
  leave();  // never resumed
  __builtin_unreachable();
}

void barrier(int id, unsigned threads) {
  if (id < 0 || id >= kBarriers) fault("a barrier number outside 0 to 15");
  Barrier& b = barriers[id];
  if (b.arrived > 0 && b.wanted != threads) fault("threads meet at one barrier with different counts");
  b.wanted = threads;
  ++b.arrived;
  if (b.arrived >= (threads ? threads : alive)) {
    release_barrier(b);
    return;
  }
  b.waiting.push_back(running);
  wait();
}

void collective(const char* kind, uint32_t mask, void* payload, CollectiveBody body) {
  const unsigned lane = fibers[running].lane(), warp = fibers[running].warp();
  if (!(mask >> lane & 1u)) fault("a lane takes part in a warp operation whose mask does not name it");
  auto& list = meetings[warp];
  Meeting* m = nullptr;
  for (Meeting& each : list)
    if (each.arrived && each.mask == mask) m = &each;
  if (!m) {
    for (Meeting& each : list)
      if (!each.arrived) m = &each;
    if (!m) {
      list.emplace_back();
      m = &list.back();
    }
    m->kind = kind;
    m->mask = mask;
    m->arrived = 0;
  }
  if (std::strcmp(m->kind, kind) != 0) fault((std::string("lanes of one warp meet in ") + m->kind + " and " + kind).c_str());
  m->payloads[lane] = payload;
  m->arrived |= 1u << lane;
  if (m->arrived == mask) {
    body(m->payloads, mask);
    m->arrived = 0;
    for (unsigned l = 0; l < 32; ++l)
      if (l != lane && (mask >> l & 1u)) make_ready(warp * 32 + l);
    progress();
    return;
  }
  wait();
}

void group_collective(const char* kind, void* payload, GroupBody body) {
  const unsigned i = running, group = i / 128;
  GroupMeeting& g = groups[group];
  if (g.arrived == 0) g.kind = kind;
  if (std::strcmp(g.kind, kind) != 0) fault((std::string("threads of one warp group meet in ") + g.kind + " and " + kind).c_str());
  g.payloads[i % 128] = payload;
  if (++g.arrived == 128) {
    body(g.payloads);
    g.arrived = 0;
    for (unsigned t = group * 128; t < group * 128 + 128; ++t)
      if (t != i) make_ready(t);
    progress();
    return;
  }
  wait();
}

void yield() {
  if (++idle_yields > kDeadlock * long(std::max(1u, alive))) fault("deadlock: threads poll for something that nobody brings about");
  ready.push_back(running);
  leave();
}
void progress() { idle_yields = 0; }

std::string run_grid(Dim grid, Dim block, size_t shared_bytes, void (*entry)(void*), void* arguments) {
  std::lock_guard<std::mutex> lock(one_grid);
  const unsigned n = block.x * block.y * block.z;
  fault_text.clear();
  faulted = false;
  reserve_stacks(n);
  if (fibers.size() < n) fibers.resize(n);
  if (meetings.size() < (n + 31) / 32) meetings.resize((n + 31) / 32);
  if (groups.size() < (n + 127) / 128) groups.resize((n + 127) / 128);
  if (shared_bytes > shared_capacity) {
    std::free(shared);
    shared_capacity = (shared_bytes + 1023) / 1024 * 1024;
    shared = static_cast<unsigned char*>(std::aligned_alloc(1024, shared_capacity));
  }
  shared_size = shared_bytes;
  if (const char* seed = std::getenv("LIBMOE_EMULATOR_ORDER")) {
    random_order = true;
    order_seed = std::strtoull(seed, nullptr, 10) * 2 + 0x9E3779B97F4A7C15ull;
  }
  kernel_entry = entry;
  kernel_arguments = arguments;
  grid_dim = grid;
  block_dim = block;
  for (unsigned z = 0; z < grid.z && !faulted; ++z)
    for (unsigned y = 0; y < grid.y && !faulted; ++y)
      for (unsigned x = 0; x < grid.x && !faulted; ++x) {
        block_index = {x, y, z};
        run_block(block);
      }
  return faulted ? fault_text : std::string();
}

}  // namespace emulator

#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/memory_pool.h"

namespace libmoe {
namespace {

thread_local bool inside_pool = false;

struct InsidePool {
  const bool before = inside_pool;
  InsidePool() { inside_pool = true; }
  ~InsidePool() { inside_pool = before; }
};

int processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

int initial_threads() {
  const char* text = std::getenv("LIBMOE_THREADS");
  if (!text || !*text) return processors();
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (*end || n < 1 || n > 1024) fail("ERR_LIBMOE_ENVIRONMENT", std::string("LIBMOE_THREADS expects a number from 1 to 1024, got \"") + text + "\"");
  return int(n);
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class Pool {
 public:
  int threads = initial_threads();

  void run(int64_t items, void (*body)(void*, int64_t), void* state) {
    if (items <= 0) return;
    const bool alone = items == 1 || threads == 1 || inside_pool;
    std::unique_lock<std::mutex> owner(owner_, std::defer_lock);
    if (alone || !owner.try_lock()) {
      const InsidePool inside;
      for (int64_t i = 0; i < items; ++i) body(state, i);
      return;
    }
    start(threads - 1);
    body_ = body;
    state_ = state;
    items_ = items;
    next_.store(0, std::memory_order_relaxed);
    const int helpers = int(std::min<int64_t>(threads - 1, items - 1));
    active_.store(helpers, std::memory_order_relaxed);
    // How many helpers take part travels with the job number, so that a late one never mixes two jobs.
    const uint32_t job = (generation_.load(std::memory_order_relaxed) >> kHelperBits) + 1;
    generation_.store(job << kHelperBits | uint32_t(helpers), std::memory_order_release);
    generation_.notify_all();
    {
      const InsidePool inside;
      work();
    }
    for (int spin = 0; active_.load(std::memory_order_acquire) > 0; ++spin) {
      if (spin < 4096) pause();
      else std::this_thread::yield();
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void work() {
    for (;;) {
      const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= items_) return;
      try {
        body_(state_, i);
      } catch (...) {  // it may not leave a helper, nor the caller while helpers read its stack
        std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
        next_.store(items_, std::memory_order_relaxed);
      }
    }
  }

  void start(int helpers) {
    for (int i = int(helpers_.size()); i < helpers; ++i) {
      try {
        helpers_.emplace_back([this, i, seen = generation_.load(std::memory_order_acquire)]() mutable { helper(i, seen); });
      } catch (const std::system_error& e) {
        fail("ERR_LIBMOE_ENVIRONMENT", "the system gave " + std::to_string(i + 1) + " of " + std::to_string(helpers + 1) + " threads (" + e.what() +
                                           "); set LIBMOE_THREADS or setThreads() to no more than it allows");
      }
      helpers_.back().detach();  // they hold no resource and end with the process
    }
  }

  void helper(int index, uint32_t seen) {
    inside_pool = true;
    for (;;) {
      // A training step is a dense series of short jobs with some 50 microseconds of JavaScript between them, and waking a sleeping
      // thread of a virtual machine takes as long again: stay awake for a millisecond, then sleep.
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(1000);
      uint32_t now;
      for (int spin = 0; (now = generation_.load(std::memory_order_acquire)) == seen; ++spin) {
        pause();
        if ((spin & 63) == 63 && std::chrono::steady_clock::now() > until) {
          generation_.wait(seen, std::memory_order_acquire);
          now = generation_.load(std::memory_order_acquire);
          if (now != seen) break;
        }
      }
      seen = now;
      if (index < int(seen & ((1u << kHelperBits) - 1))) {
        work();
        active_.fetch_sub(1, std::memory_order_release);
      }
    }
  }

  static constexpr int kHelperBits = 11;

  std::mutex owner_;
  std::vector<std::thread> helpers_;
  void (*body_)(void*, int64_t) = nullptr;
  void* state_ = nullptr;
  int64_t items_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> active_{0};
  std::atomic<uint32_t> generation_{0};
  std::mutex error_mutex_;
  std::exception_ptr error_;  // the first of a job
};

// Never destroyed: helper threads may still wait on it while the process ends.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

struct ScratchBlock {
  void* data = nullptr;
  size_t bytes = 0;
  ~ScratchBlock() {
    if (data) unmap_block(data, bytes);
  }
};

}  // namespace

int thread_count() { return pool().threads; }
void set_thread_count(int threads) { pool().threads = std::max(1, std::min(threads, 1024)); }

void* scratch(int lane, size_t bytes) {
  thread_local ScratchBlock blocks[8];
  ScratchBlock& b = blocks[lane & 7];
  if (b.bytes < bytes) {
    if (b.data) unmap_block(b.data, b.bytes);
    b.data = nullptr;  // map_block may throw
    b.bytes = 0;
    const size_t size = (bytes + bytes / 2 + 4095) & ~size_t(4095);
    b.data = map_block(size);
    b.bytes = size;
  }
  return b.data;
}

void detail::run_items(int64_t items, void (*body)(void*, int64_t), void* state) { pool().run(items, body, state); }

}  // namespace libmoe

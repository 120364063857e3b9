#pragma once
// The process's own worker threads. Items are handed out by a counter, so work must not depend on which thread runs an item:
// every result is the same for any number of threads.
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace libmoe {

// Threads that run an operation, the caller included. Initially LIBMOE_THREADS or the number of processors we may use. Throws ERR_LIBMOE_ENVIRONMENT when
// LIBMOE_THREADS is no number from 1 to 1024.
int thread_count();
void set_thread_count(int threads);

namespace detail {
void run_items(int64_t items, void (*body)(void*, int64_t item), void* state);
}

// Calls body(item) once for each item in [0, items), in any order, on any thread; returns when all are done. When one throws, no
// further items begin and the exception goes on to the caller once those that run are done.
// A call from inside an item, or while another JavaScript thread holds the pool, runs on the calling thread alone.
template <class F> void parallel_for(int64_t items, F&& body) {
  using Body = std::remove_reference_t<F>;
  detail::run_items(items, [](void* state, int64_t item) { (*static_cast<Body*>(state))(item); }, const_cast<std::remove_const_t<Body>*>(&body));
}

// Splits [0, n) into fixed pieces of `grain` and calls body(begin, end) for each. The pieces depend on n and grain only.
template <class F> void parallel_ranges(int64_t n, int64_t grain, F&& body) {
  if (n <= 0) return;
  const int64_t pieces = (n + grain - 1) / grain;
  if (pieces == 1) return body(int64_t(0), n);
  parallel_for(pieces, [&](int64_t i) { body(i * grain, i * grain + grain < n ? i * grain + grain : n); });
}

// Scratch memory of the calling thread, at least `bytes` large, 64-byte aligned (2 MB aligned when large), contents undefined.
// One block per `lane` (0..7); valid until the same thread asks for the same lane again.
void* scratch(int lane, size_t bytes);
template <class T> T* scratch_of(int lane, int64_t count) { return static_cast<T*>(scratch(lane, size_t(count) * sizeof(T))); }

}  // namespace libmoe

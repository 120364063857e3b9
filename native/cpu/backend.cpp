// Compiled once, for plain x86-64: chooses the instruction set at load time. LIBMOE_CPU=avx512|avx2|portable forces one.
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "core/memory_pool.h"
#include "core/thread_pool.h"
#include "cpu/tables.h"

namespace libmoe {
namespace {

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}
bool has_avx512() {
#if defined(__x86_64__)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

// Large copies are split so that both memory channels work.
constexpr size_t kCopyPiece = size_t(1) << 20;

Backend make() {
  Backend b;
  b.name = "cpu";
  b.allocate = [](Device, size_t bytes) { return pool_allocate(bytes); };
  b.release = [](Device, void* data, size_t bytes) { pool_release(data, bytes); };
  b.copy = [](Device, void* to, const void* from, size_t bytes) {
    parallel_ranges(int64_t(bytes), int64_t(kCopyPiece),
                    [&](int64_t begin, int64_t end) { std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, size_t(end - begin)); });
  };
  b.upload = b.copy;
  b.download = b.copy;
  b.download_all = [](Device, const std::vector<HostCopy>& list) {
    for (const HostCopy& c : list) std::memcpy(c.to, c.from, c.bytes);
  };
  b.clear = [](Device, void* data, size_t bytes) {
    parallel_ranges(int64_t(bytes), int64_t(kCopyPiece), [&](int64_t begin, int64_t end) { std::memset(static_cast<char*>(data) + begin, 0, size_t(end - begin)); });
  };
  b.synchronise = [](Device) {};
  b.trim = pool_trim;

  thread_count();  // refuses a wrong LIBMOE_THREADS now, not at the first operation that is large enough

  const char* forced = std::getenv("LIBMOE_CPU");
  const std::string wanted = forced ? forced : "";
  if (!wanted.empty() && wanted != "portable" && wanted != "avx2" && wanted != "avx512")
    fail("ERR_LIBMOE_ENVIRONMENT", "LIBMOE_CPU expects avx512, avx2 or portable, got \"" + wanted + "\"");
  if ((wanted == "avx512" && !has_avx512()) || (wanted == "avx2" && !has_avx2()))
    fail("ERR_LIBMOE_ENVIRONMENT", "LIBMOE_CPU=" + wanted + ", but this processor lacks it; unset LIBMOE_CPU or choose portable");
#if defined(__x86_64__)
  if (wanted == "avx512" || (wanted.empty() && has_avx512())) {
    b.instruction_set = "avx512";
    cpu::avx512::fill(b);
    return b;
  }
  if (wanted == "avx2" || (wanted.empty() && has_avx2())) {
    b.instruction_set = "avx2";
    cpu::avx2::fill(b);
    return b;
  }
#endif
  b.instruction_set = "portable";
  cpu::portable::fill(b);
  return b;
}

}  // namespace

const Backend& cpu_backend() {
  static const Backend* backend = new Backend(make());
  return *backend;
}

}  // namespace libmoe

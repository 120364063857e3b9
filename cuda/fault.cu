#include "cuda/core/fault.h"

#include <string>

#include "cuda/core/whole.h"

namespace libmoe::cuda {
namespace {
constexpr size_t kTexts = 1 << 16;
}

FaultSlot fault_slot(DeviceState& state, const FaultText& text) {
  auto& w = static_cast<Whole&>(state);
  const std::lock_guard<std::mutex> lock(w.fault_mutex);
  if (w.texts.size() == kTexts) {
    w.texts.pop_front();
    ++w.first_text;
  }
  w.texts.push_back(text);
  return {w.fault, w.operations++};
}

void throw_fault(DeviceState& state, unsigned long long key) {
  if (key == ~0ull) return;
  auto& w = static_cast<Whole&>(state);
  check(cudaMemsetAsync(w.fault, 0xff, 8, w.compute), "clearing the fault word");
  const std::lock_guard<std::mutex> lock(w.fault_mutex);
  // Of an operation's number the device keeps the lower half; it is one of the last 2^32.
  unsigned long long operation = (w.operations & ~0xffffffffull) | key >> 32;
  if (operation >= w.operations) operation -= 1ull << 32;
  const unsigned long long position = key & 0xffffffffull;
  if (operation < w.first_text || operation >= w.first_text + w.texts.size())
    fail("ERR_LIBMOE_ARGUMENT", "an operation long ago met a value out of its range at position " + std::to_string(position) + "; read results more often to learn which");
  const FaultText& t = w.texts[size_t(operation - w.first_text)];
  if (t.low > t.high) fail(t.code, std::string(t.what) + " is not finite at " + t.place + " " + std::to_string(position));
  fail(t.code, std::string(t.what) + " must be from " + std::to_string(t.low) + " to " + std::to_string(t.high) + "; the value at " + t.place + " " + std::to_string(position) + " is not");
}

}  // namespace libmoe::cuda

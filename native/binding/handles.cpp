#include "binding/handles.h"

namespace libmoe::binding {
namespace {
constexpr double kSlots = 1 << 26;  // handle = generation * 2^26 + slot, exact in a double
}

double Handles::add(std::shared_ptr<Storage> storage, size_t offset, Dtype dtype, const Shape& shape) {
  uint32_t slot;
  if (free_.empty()) {
    slot = uint32_t(entries_.size());
    entries_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  Entry& e = entries_[slot];
  e.storage = std::move(storage);
  e.offset = offset;
  e.dtype = dtype;
  e.shape = shape;
  return double(e.generation) * kSlots + slot;
}

const Entry* Handles::find(double handle) const {
  if (!(handle >= kSlots && handle < 9007199254740992.0)) return nullptr;
  const uint64_t bits = uint64_t(handle), slot = bits & (uint64_t(kSlots) - 1), generation = bits / uint64_t(kSlots);
  if (slot >= entries_.size()) return nullptr;
  const Entry& e = entries_[slot];
  return e.storage && e.generation == generation ? &e : nullptr;
}

bool Handles::remove(double handle) {
  const Entry* found = find(handle);
  if (!found) return false;
  Entry& e = entries_[size_t(found - entries_.data())];
  e.storage.reset();
  e.generation = (e.generation + 1) & ((1u << 26) - 1);
  if (e.generation == 0) e.generation = 1;
  free_.push_back(uint32_t(&e - entries_.data()));
  return true;
}

void create_handles(Napi::Env env) { env.SetInstanceData(new Handles); }
Handles& handles_of(Napi::Env env) { return *env.GetInstanceData<Handles>(); }

}  // namespace libmoe::binding

#pragma once
// The table behind the numbers that TypeScript holds: handle -> (storage, offset, shape). A handle carries a generation, so a stale one is
// recognised and never reaches memory that now belongs to another tensor. One table per JavaScript environment (main thread, each worker).
#include <napi.h>

#include <memory>
#include <vector>

#include "core/tensor.h"

namespace libmoe::binding {

struct Entry {
  std::shared_ptr<Storage> storage;
  size_t offset = 0;  // bytes
  Dtype dtype = Dtype::f32;
  Shape shape;
  uint32_t generation = 1;
};

class Handles {
 public:
  double add(std::shared_ptr<Storage> storage, size_t offset, Dtype dtype, const Shape& shape);
  const Entry* find(double handle) const;  // null when stale or never given out
  bool remove(double handle);
  int64_t told = 0;  // bytes outside its heap that V8 has been told of
  size_t live() const { return entries_.size() - free_.size(); }

 private:
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
};

Handles& handles_of(Napi::Env env);
void create_handles(Napi::Env env);

}  // namespace libmoe::binding

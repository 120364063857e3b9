#pragma once
// One binding per op family; addon.cpp calls them all.
#include "binding/call.h"

namespace libmoe::binding {

void bind_tensors(Napi::Object exports);
void bind_elementwise(Napi::Object exports);

}  // namespace libmoe::binding

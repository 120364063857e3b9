#pragma once
// One binding per op family; addon.cpp calls them all. Weak until every family is written.
#include "binding/call.h"

namespace libmoe::binding {

void bind_tensors(Napi::Object exports);
void bind_attention(Napi::Object exports) __attribute__((weak));
void bind_elementwise(Napi::Object exports) __attribute__((weak));
void bind_embedding(Napi::Object exports) __attribute__((weak));
void bind_gating(Napi::Object exports) __attribute__((weak));
void bind_gemm(Napi::Object exports) __attribute__((weak));
void bind_grouped_ffn(Napi::Object exports) __attribute__((weak));
void bind_loss(Napi::Object exports) __attribute__((weak));
void bind_norm(Napi::Object exports) __attribute__((weak));
void bind_optimizer(Napi::Object exports) __attribute__((weak));
void bind_permutation(Napi::Object exports) __attribute__((weak));
void bind_random(Napi::Object exports) __attribute__((weak));
void bind_reduction(Napi::Object exports) __attribute__((weak));
void bind_rotary(Napi::Object exports) __attribute__((weak));
void bind_shape(Napi::Object exports) __attribute__((weak));
void bind_softmax(Napi::Object exports) __attribute__((weak));

}  // namespace libmoe::binding

#pragma once
// One binding per op family; addon.cpp calls them all.
#include "binding/call.h"

namespace libmoe::binding {

void bind_tensors(Napi::Object exports);
void bind_attention(Napi::Object exports);
void bind_collective(Napi::Object exports);
void bind_elementwise(Napi::Object exports);
void bind_embedding(Napi::Object exports);
void bind_gating(Napi::Object exports);
void bind_gemm(Napi::Object exports);
void bind_grouped_ffn(Napi::Object exports);
void bind_image(Napi::Object exports);
void bind_loss(Napi::Object exports);
void bind_norm(Napi::Object exports);
void bind_optimizer(Napi::Object exports);
void bind_permutation(Napi::Object exports);
void bind_random(Napi::Object exports);
void bind_reduction(Napi::Object exports);
void bind_rotary(Napi::Object exports);
void bind_shape(Napi::Object exports);
void bind_softmax(Napi::Object exports);

}  // namespace libmoe::binding

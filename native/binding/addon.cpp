#include "binding/families.h"
#include "binding/handles.h"

namespace libmoe::binding {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  create_handles(env);
  bind_tensors(exports);
  if (bind_attention) bind_attention(exports);
  if (bind_elementwise) bind_elementwise(exports);
  if (bind_embedding) bind_embedding(exports);
  if (bind_gating) bind_gating(exports);
  if (bind_gemm) bind_gemm(exports);
  if (bind_grouped_ffn) bind_grouped_ffn(exports);
  if (bind_loss) bind_loss(exports);
  if (bind_norm) bind_norm(exports);
  if (bind_optimizer) bind_optimizer(exports);
  if (bind_permutation) bind_permutation(exports);
  if (bind_random) bind_random(exports);
  if (bind_reduction) bind_reduction(exports);
  if (bind_rotary) bind_rotary(exports);
  if (bind_shape) bind_shape(exports);
  if (bind_softmax) bind_softmax(exports);
  return exports;
}

NODE_API_MODULE(libmoe, Init)

}  // namespace libmoe::binding

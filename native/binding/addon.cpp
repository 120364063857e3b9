#include "binding/families.h"
#include "binding/handles.h"

namespace libmoe::binding {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  create_handles(env);
  bind_tensors(exports);
  bind_attention(exports);
  bind_collective(exports);
  bind_elementwise(exports);
  bind_embedding(exports);
  bind_gating(exports);
  bind_gemm(exports);
  bind_grouped_ffn(exports);
  bind_image(exports);
  bind_loss(exports);
  bind_norm(exports);
  bind_optimizer(exports);
  bind_permutation(exports);
  bind_random(exports);
  bind_reduction(exports);
  bind_rotary(exports);
  bind_shape(exports);
  bind_softmax(exports);
  return exports;
}

NODE_API_MODULE(libmoe, Init)

}  // namespace libmoe::binding

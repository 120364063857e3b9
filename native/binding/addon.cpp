#include "binding/families.h"
#include "binding/handles.h"

namespace libmoe::binding {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  create_handles(env);
  bind_tensors(exports);
  bind_elementwise(exports);
  return exports;
}

NODE_API_MODULE(libmoe, Init)

}  // namespace libmoe::binding

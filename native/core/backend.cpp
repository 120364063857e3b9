#include "core/backend.h"

#include "core/error.h"

namespace libmoe {

const Backend& backend_of(Device device) {
  if (device.kind == DeviceKind::cpu && device.index == 0) return cpu_backend();
  fail("ERR_LIBMOE_DEVICE", "no such device in this build; devices() lists what there is");
}

}  // namespace libmoe

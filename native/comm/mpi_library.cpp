// Finds libmoe_mpi.so, which in turn needs the MPI that it was compiled against.
#include <dlfcn.h>

#include <mutex>
#include <optional>

#include "comm/mpi.h"
#include "core/error.h"
#include "ops/collective.h"

namespace libmoe {
namespace comm {
namespace {

struct Opened {
  CollectiveLibrary library;
  const MpiShim* shim = nullptr;
};
std::mutex mutex;
std::optional<Opened> opened;

std::string beside_this_binary() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&beside_this_binary), &info) || !info.dli_fname) return "libmoe_mpi.so";
  const std::string self = info.dli_fname;
  const size_t slash = self.rfind('/');
  return (slash == std::string::npos ? "" : self.substr(0, slash + 1)) + "libmoe_mpi.so";
}

Opened open(const std::string& file) {
  Opened o;
  o.library.path = file;
  // Global: the MPI loads plug-ins of its own, which look for its symbols.
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!handle) {
    const char* why = dlerror();
    o.library.reason = std::string(why ? why : "cannot be opened") + " (CPU ranks need Open MPI 4 or 5: apt-get install openmpi-bin; another MPI: libmoe build)";
    return o;
  }
  const auto entry = reinterpret_cast<const MpiShim* (*)()>(dlsym(handle, "libmoe_mpi_shim"));
  const MpiShim* shim = entry ? entry() : nullptr;
  if (!shim || shim->version != kMpiShimVersion) {
    o.library.reason = file + " does not belong to this version of libmoe; build both together (libmoe build)";
    return o;
  }
  const std::string version = shim->library();
  o.library.version = version.substr(0, version.find_first_of(",\n"));
  o.shim = shim;
  return o;
}

}  // namespace

const MpiShim& mpi() {
  const std::lock_guard lock(mutex);
  if (!opened || !opened->shim) fail("ERR_LIBMOE_COLLECTIVE", opened ? opened->library.reason : "MPI has not been opened");
  return *opened->shim;
}

}  // namespace comm

CollectiveLibrary open_mpi(const std::string& file) {
  const std::lock_guard lock(comm::mutex);
  if (!comm::opened || !comm::opened->shim) comm::opened = comm::open(file.empty() ? comm::beside_this_binary() : file);
  return comm::opened->library;
}

}  // namespace libmoe

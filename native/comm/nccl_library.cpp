// NCCL: a file that opens and has every symbol, in a version with communicators that do not block (2.14 has them; before 2.18 they
// could not do everything that we ask of them).
#include <dlfcn.h>

#include <mutex>
#include <optional>

#include "comm/engine.h"
#include "comm/nccl.h"
#include "core/error.h"

namespace libmoe {
namespace comm {
namespace {

constexpr int kOldest = 21800;

struct Opened {
  CollectiveLibrary library;
  NcclFunctions functions{};
};
std::mutex mutex;
std::optional<Opened> opened;

std::string version_text(int v) {
  // 2.9 changed the number of digits of the minor version.
  const int major = v < 10000 ? v / 1000 : v / 10000, minor = v < 10000 ? v % 1000 / 100 : v % 10000 / 100;
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(v % 100);
}

template <class F> bool find(void* library, const char* name, F*& function, std::string& missing) {
  function = reinterpret_cast<F*>(dlsym(library, name));
  if (!function) missing += (missing.empty() ? "" : ", ") + std::string(name);
  return function != nullptr;
}

std::string where(void* library, const std::string& asked) {
  Dl_info info;
  void* symbol = dlsym(library, "ncclGetVersion");
  return symbol && dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : asked;
}

// Fills in functions, version and the reason against it.
void look_at(void* handle, Opened& o) {
  NcclFunctions& f = o.functions;
  std::string missing;
  int version = 0;
  if (find(handle, "ncclGetVersion", f.get_version, missing) && f.get_version(&version) == kNcclSuccess) o.library.version = version_text(version);
  o.library.stand_in = dlsym(handle, "libmoeStandInNccl") != nullptr;
  if (version > 0 && version < kOldest) {
    o.library.reason = "NCCL " + o.library.version + " in " + o.library.path + " is too old: " + version_text(kOldest) +
                       " or newer is needed (pip install -U nvidia-nccl-cu13, or set LIBMOE_NCCL to a newer libnccl.so.2)";
    return;
  }
  find(handle, "ncclGetUniqueId", f.get_unique_id, missing);
  find(handle, "ncclCommInitRankConfig", f.comm_init_rank_config, missing);
  find(handle, "ncclCommFinalize", f.comm_finalize, missing);
  find(handle, "ncclCommDestroy", f.comm_destroy, missing);
  find(handle, "ncclCommAbort", f.comm_abort, missing);
  find(handle, "ncclCommGetAsyncError", f.comm_get_async_error, missing);
  find(handle, "ncclCommCount", f.comm_count, missing);
  find(handle, "ncclGetErrorString", f.get_error_string, missing);
  find(handle, "ncclGetLastError", f.get_last_error, missing);
  find(handle, "ncclAllReduce", f.all_reduce, missing);
  find(handle, "ncclReduceScatter", f.reduce_scatter, missing);
  find(handle, "ncclAllGather", f.all_gather, missing);
  find(handle, "ncclBroadcast", f.broadcast, missing);
  find(handle, "ncclSend", f.send, missing);
  find(handle, "ncclRecv", f.recv, missing);
  find(handle, "ncclGroupStart", f.group_start, missing);
  find(handle, "ncclGroupEnd", f.group_end, missing);
  if (!missing.empty()) o.library.reason = o.library.path + " is no NCCL that can be used: it lacks " + missing;
}

}  // namespace

const NcclFunctions& nccl() {
  const std::lock_guard lock(mutex);
  if (!opened || !opened->library.reason.empty()) fail("ERR_LIBMOE_COLLECTIVE", opened ? opened->library.reason : "NCCL has not been opened");
  return opened->functions;
}

bool nccl_is_stand_in() {
  const std::lock_guard lock(mutex);
  return opened && opened->library.stand_in;
}

}  // namespace comm

CollectiveLibrary open_nccl(const std::string& file) {
  const std::lock_guard lock(comm::mutex);
  if (comm::opened && comm::opened->library.reason.empty()) return comm::opened->library;
  comm::Opened found;
  found.library.path = file;
  if (void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    found.library.path = comm::where(handle, file);
    comm::look_at(handle, found);
  } else {
    const char* why = dlerror();
    found.library.reason = why ? why : file + " cannot be opened";
  }
  comm::opened = found;
  return found.library;
}

std::string nccl_unique_id() {
  const comm::NcclFunctions& f = comm::nccl();
  comm::NcclUniqueId id;
  const comm::NcclResult r = f.get_unique_id(&id);
  if (r != comm::kNcclSuccess) fail("ERR_LIBMOE_COLLECTIVE", std::string("NCCL could not make a unique id: ") + f.get_error_string(r));
  return std::string(id.bytes, sizeof id.bytes);
}

}  // namespace libmoe

// Built into libmoe_mpi.so where Open MPI's headers are found. Plain C++ without a run-time library of its own; called by one thread.
#include "comm/mpi_shim.h"

#include <mpi.h>

#include <cstdlib>
#include <cstring>

namespace {

MPI_Comm comm = MPI_COMM_NULL;
MPI_Request* requests = nullptr;
int capacity = 0;

// A free slot, growing as needed; -1 without memory.
int slot() {
  for (int i = 0; i < capacity; ++i)
    if (requests[i] == MPI_REQUEST_NULL) return i;
  const int more = capacity ? 2 * capacity : 64;
  auto* grown = static_cast<MPI_Request*>(std::realloc(requests, size_t(more) * sizeof(MPI_Request)));
  if (!grown) return -1;
  requests = grown;
  for (int i = capacity; i < more; ++i) requests[i] = MPI_REQUEST_NULL;
  const int free = capacity;
  capacity = more;
  return free;
}

const char* library() {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "";
  return text;
}

int start(int* rank, int* size) {
  int flag = 0;
  MPI_Initialized(&flag);
  if (flag) return 1;
  int provided = 0;
  // The thread that calls start() makes all later calls too.
  if (const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided)) return code;
  if (provided < MPI_THREAD_FUNNELED) return 2;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (const int code = MPI_Comm_dup(MPI_COMM_WORLD, &comm)) return code;
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm, rank);
  return MPI_Comm_size(comm, size);
}

void error_text(int code, char* text, int length) {
  char full[MPI_MAX_ERROR_STRING];
  int size = 0;
  if (MPI_Error_string(code, full, &size) != MPI_SUCCESS) std::strcpy(full, "unknown error");
  std::strncpy(text, full, size_t(length - 1));
  text[length - 1] = 0;
}

int send(const void* data, int bytes, int peer, int tag, int* request) {
  if ((*request = slot()) < 0) return MPI_ERR_NO_MEM;
  return MPI_Isend(data, bytes, MPI_BYTE, peer, tag, comm, &requests[*request]);
}

int receive(void* data, int bytes, int peer, int tag, int* request) {
  if ((*request = slot()) < 0) return MPI_ERR_NO_MEM;
  return MPI_Irecv(data, bytes, MPI_BYTE, peer, tag, comm, &requests[*request]);
}

int test(int request, int* done, int* bytes) {
  MPI_Status status;
  const int code = MPI_Test(&requests[request], done, &status);
  if (code != MPI_SUCCESS || !*done) return code;
  return MPI_Get_count(&status, MPI_BYTE, bytes);
}

int finish() {
  if (const int code = MPI_Comm_free(&comm)) return code;
  return MPI_Finalize();
}

constexpr libmoe::comm::MpiShim shim{libmoe::comm::kMpiShimVersion, library, start, error_text, send, receive, test, finish};

}  // namespace

extern "C" __attribute__((visibility("default"))) const libmoe::comm::MpiShim* libmoe_mpi_shim() { return &shim; }

#pragma once
// The few functions of MPI that we use, in terms of C: mpi_shim.cpp is compiled against one MPI and becomes libmoe_mpi.so, which alone knows that MPI's
// types. All but start() return 0 or an MPI error code; nothing here waits for another rank except start() and finish().

namespace libmoe::comm {

constexpr int kMpiShimVersion = 1;

struct MpiShim {
  int version;
  const char* (*library)();                                        // the MPI's own name and version
  // MPI_Init_thread, own communicator; rank and size of the world. 1 when MPI was started before, 2 when it cannot be called from a thread, else an MPI code.
  int (*start)(int* rank, int* size);
  void (*error_text)(int code, char* text, int length);
  // Requests are numbered from 0; a number is free again once test() has reported it.
  int (*send)(const void* data, int bytes, int peer, int tag, int* request);
  int (*receive)(void* data, int bytes, int peer, int tag, int* request);
  // done: 1 when complete; bytes: what a receive got, which may be less than it had room for.
  int (*test)(int request, int* done, int* bytes);
  int (*finish)();                                                 // MPI_Finalize
};

}  // namespace libmoe::comm

extern "C" const libmoe::comm::MpiShim* libmoe_mpi_shim();

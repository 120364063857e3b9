#pragma once
// The part of NCCL's C interface that we use, declared from its documentation: nothing of NCCL is needed to build, and nothing is linked.
// https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html
#include <climits>
#include <cstddef>

namespace libmoe::comm {

struct NcclCommunicator;  // opaque
using NcclComm = NcclCommunicator*;
struct NcclUniqueId {
  char bytes[128];
};

enum NcclResult : int { kNcclSuccess = 0, kNcclInvalidUsage = 5, kNcclRemoteError = 6, kNcclInProgress = 7 };
enum NcclType : int { kNcclUint8 = 1, kNcclInt32 = 2, kNcclInt64 = 4, kNcclFloat32 = 7, kNcclFloat64 = 8, kNcclBfloat16 = 9 };
enum NcclOp : int { kNcclSum = 0, kNcclMax = 2 };

// ncclConfig_t as of 2.14: later versions fill in what they have added, going by `size` and `version`. The last field only fills the padding that
// later versions use: "undefined".
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
  int padding = INT_MIN;
};
static_assert(sizeof(NcclConfig) == 24);

struct NcclFunctions {
  NcclResult (*get_version)(int*);
  NcclResult (*get_unique_id)(NcclUniqueId*);
  NcclResult (*comm_init_rank_config)(NcclComm*, int size, NcclUniqueId, int rank, NcclConfig*);
  NcclResult (*comm_finalize)(NcclComm);
  NcclResult (*comm_destroy)(NcclComm);
  NcclResult (*comm_abort)(NcclComm);
  NcclResult (*comm_get_async_error)(NcclComm, NcclResult*);
  NcclResult (*comm_count)(NcclComm, int*);
  const char* (*get_error_string)(NcclResult);
  const char* (*get_last_error)(NcclComm);
  NcclResult (*all_reduce)(const void* input, void* output, size_t count, NcclType, NcclOp, NcclComm, void* stream);
  NcclResult (*reduce_scatter)(const void* input, void* output, size_t output_count, NcclType, NcclOp, NcclComm, void* stream);
  NcclResult (*all_gather)(const void* input, void* output, size_t input_count, NcclType, NcclComm, void* stream);
  NcclResult (*broadcast)(const void* input, void* output, size_t count, NcclType, int root, NcclComm, void* stream);
  NcclResult (*send)(const void* data, size_t count, NcclType, int peer, NcclComm, void* stream);
  NcclResult (*recv)(void* data, size_t count, NcclType, int peer, NcclComm, void* stream);
  NcclResult (*group_start)();
  NcclResult (*group_end)();
};

// Those of the library that open_nccl() found. Throws ERR_LIBMOE_COLLECTIVE when it found none.
const NcclFunctions& nccl();
bool nccl_is_stand_in();

}  // namespace libmoe::comm

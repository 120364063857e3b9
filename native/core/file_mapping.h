#pragma once
// Part of a file as read-only memory (POSIX mmap), for as long as the object lives. Pages come from the file when they are touched, belong to the
// page cache and go with the mapping: nothing is allocated, nothing is told to V8.
// The size is checked when the file is opened. A file that another process cuts short while it is mapped raises SIGBUS on the pages that are gone, as
// every mapping does: checkpoints are replaced by rename, never rewritten in place.
#include <cstddef>
#include <cstdint>
#include <string>

namespace libmoe {

class FileMapping {
 public:
  // Maps `bytes` bytes from `offset` on of a file that must have `size` bytes. Throws ERR_LIBMOE_CHECKPOINT.
  FileMapping(const std::string& path, int64_t size, int64_t offset, int64_t bytes);
  ~FileMapping();
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;
  const char* data() const { return data_; }  // of any alignment

 private:
  void* base_ = nullptr;
  size_t mapped_ = 0;
  const char* data_ = nullptr;
};

}  // namespace libmoe

#include "core/file_mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace libmoe {
namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

FileMapping::FileMapping(const std::string& path, int64_t size, int64_t offset, int64_t bytes) {
  const auto reject = [&](const std::string& why) { fail("ERR_LIBMOE_CHECKPOINT", path + " " + why); };
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat status {};
  if (file.fd < 0 || ::fstat(file.fd, &status) != 0) reject(std::string("cannot be read (") + std::strerror(errno) + ")");
  if (int64_t(status.st_size) != size)
    reject("has " + std::to_string(status.st_size) + " bytes, it had " + std::to_string(size) + " when its header was read: it is being changed or was truncated");
  if (offset < 0 || bytes < 0 || offset > size || bytes > size - offset)
    reject("has " + std::to_string(size) + " bytes; " + std::to_string(bytes) + " from byte " + std::to_string(offset) + " on lie outside");
  if (bytes == 0) return;
  const int64_t page = ::sysconf(_SC_PAGESIZE), begin = offset / page * page;
  mapped_ = size_t(offset - begin + bytes);
  base_ = ::mmap(nullptr, mapped_, PROT_READ, MAP_PRIVATE, file.fd, off_t(begin));
  if (base_ == MAP_FAILED) {
    base_ = nullptr;
    reject(std::string("cannot be mapped (") + std::strerror(errno) + ")");
  }
  ::madvise(base_, mapped_, MADV_WILLNEED);  // threads read pieces of it in any order: begin to fetch all of it
  data_ = static_cast<const char*>(base_) + (offset - begin);
}

FileMapping::~FileMapping() {
  if (base_) ::munmap(base_, mapped_);
}

}  // namespace libmoe

#pragma once
// The one exception of the native side. `code` is the stable ERR_LIBMOE_* name that JavaScript sees.
#include <stdexcept>
#include <string>

namespace libmoe {

class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

[[noreturn]] inline void fail(const char* code, const std::string& message) { throw Error(code, message); }

}  // namespace libmoe

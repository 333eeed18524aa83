// A node's attributes, read by name: missing ones take their default, and none is taken for another
// type.
#pragma once

#include <string>

#include "abi/error.h"
#include "abi/ort_abi.h"

namespace gptoss {

class NodeAttributes {
 public:
  // Errors name `op`.
  NodeAttributes(const OrtApi& api, const OrtKernelInfo& info, const char* op)
      : api_(api), info_(info), op_(op) {}

  // An attribute that every node states.
  int64_t integer(const char* name) const;
  float number(const char* name) const;

  // An attribute that a node may leave out. Throws Error where it has another type.
  int64_t integer(const char* name, int64_t otherwise) const;
  float number(const char* name, float otherwise) const;
  std::string text(const char* name, const std::string& otherwise) const;
  bool flag(const char* name, bool otherwise) const;  // an integer, 0 or 1

  // Says which op, which attribute, what was found and what was expected.
  [[noreturn]] void reject(const char* name, const std::string& found,
                           const std::string& expected) const;

 private:
  bool read(const char* name, int64_t& value) const;
  bool read(const char* name, float& value) const;
  bool read(const char* name, std::string& value) const;
  template <class T>
  T value_or(const char* name, const T& otherwise, const char* type) const;
  bool succeeds(OrtStatus* status) const;

  const OrtApi& api_;
  const OrtKernelInfo& info_;
  const char* op_;
};

}  // namespace gptoss

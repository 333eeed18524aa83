#include "abi/node_attributes.h"

namespace gptoss {

int64_t NodeAttributes::integer(const char* name) const {
  int64_t value = 0;
  check(api_, api_.KernelInfoGetAttribute_int64(&info_, name, &value));
  return value;
}

float NodeAttributes::number(const char* name) const {
  float value = 0;
  check(api_, api_.KernelInfoGetAttribute_float(&info_, name, &value));
  return value;
}

int64_t NodeAttributes::integer(const char* name, int64_t otherwise) const {
  return value_or(name, otherwise, "an integer");
}

float NodeAttributes::number(const char* name, float otherwise) const {
  return value_or(name, otherwise, "a float");
}

std::string NodeAttributes::text(const char* name, const std::string& otherwise) const {
  return value_or(name, otherwise, "a string");
}

bool NodeAttributes::flag(const char* name, bool otherwise) const {
  const int64_t value = integer(name, otherwise ? 1 : 0);
  if (value != 0 && value != 1) reject(name, std::to_string(value), "0 or 1");
  return value == 1;
}

void NodeAttributes::reject(const char* name, const std::string& found,
                            const std::string& expected) const {
  throw Error(ORT_INVALID_ARGUMENT, std::string(op_) + ": attribute '" + name + "': found " +
                                        found + ", expected " + expected);
}

// ONNX Runtime has one answer for an attribute that is missing and for one of another type. To tell
// them apart, the attribute is asked for as each other type.
template <class T>
T NodeAttributes::value_or(const char* name, const T& otherwise, const char* type) const {
  T value{};
  if (read(name, value)) return value;
  int64_t integer = 0;
  float number = 0;
  std::string text;
  if (read(name, integer)) reject(name, "the integer " + std::to_string(integer), type);
  if (read(name, number)) reject(name, "the float " + std::to_string(number), type);
  if (read(name, text)) reject(name, "the string '" + text + "'", type);
  return otherwise;
}

bool NodeAttributes::read(const char* name, int64_t& value) const {
  return succeeds(api_.KernelInfoGetAttribute_int64(&info_, name, &value));
}

bool NodeAttributes::read(const char* name, float& value) const {
  return succeeds(api_.KernelInfoGetAttribute_float(&info_, name, &value));
}

bool NodeAttributes::read(const char* name, std::string& value) const {
  size_t size = 0;  // with the terminating zero
  if (!succeeds(api_.KernelInfoGetAttribute_string(&info_, name, nullptr, &size))) return false;
  value.resize(size);
  check(api_, api_.KernelInfoGetAttribute_string(&info_, name, value.data(), &size));
  value.resize(size - 1);
  return true;
}

bool NodeAttributes::succeeds(OrtStatus* status) const {
  if (status == nullptr) return true;
  api_.ReleaseStatus(status);
  return false;
}

}  // namespace gptoss

// Attributes of a node that it may leave out.
#pragma once

#include <cstring>

#include "abi/error.h"
#include "abi/ort_abi.h"

namespace gptoss {

// Whether the node has the attribute. Frees the status that says no; throws for any other failure, as a wrong type.
inline bool has_attribute(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return true;
  if (std::strstr(api.GetErrorMessage(status), "No attribute with name") == nullptr) check(api, status);
  api.ReleaseStatus(status);
  return false;
}

inline int64_t attribute_or(const OrtApi& api, const OrtKernelInfo& info, const char* name, int64_t absent) {
  int64_t value = 0;
  return has_attribute(api, api.KernelInfoGetAttribute_int64(&info, name, &value)) ? value : absent;
}

inline float attribute_or(const OrtApi& api, const OrtKernelInfo& info, const char* name, float absent) {
  float value = 0;
  return has_attribute(api, api.KernelInfoGetAttribute_float(&info, name, &value)) ? value : absent;
}

}  // namespace gptoss

// Errors inside the library: thrown as C++ exceptions, turned into an OrtStatus at the C boundary.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include "abi/ort_abi.h"

namespace gptoss {

class Error : public std::runtime_error {
 public:
  Error(OrtErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  OrtErrorCode code() const noexcept { return code_; }

 private:
  OrtErrorCode code_;
};

// Throws when an API call failed, with ONNX Runtime's own message; frees the status.
inline void check(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return;
  const Error error(api.GetErrorCode(status), api.GetErrorMessage(status));
  api.ReleaseStatus(status);
  throw error;
}

// Runs `body` and turns what it throws into a status, since no exception may cross into ONNX
// Runtime.
template <class Body>
OrtStatus* guarded(const OrtApi& api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    return api.CreateStatus(error.code(), error.what());
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
  } catch (...) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, "gptoss_ops: unknown C++ exception");
  }
}

}  // namespace gptoss

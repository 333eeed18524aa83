// The table of everything this library offers to a session.
#pragma once

#include <vector>

#include "ort_abi.h"

namespace gptoss {

struct Domain {
  const char* name;
  std::vector<const OrtCustomOp*> operators;
};

constexpr const char* kDomain = "ai.gptoss";
constexpr const char* kSelfCheckDomain = "ai.gptoss.selfcheck";

// Lives as long as the process, as ONNX Runtime keeps pointers to the operators.
const std::vector<Domain>& domains();

}  // namespace gptoss

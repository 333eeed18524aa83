// The table of everything this library offers to a session.
#pragma once

#include <vector>

#include "machine/activations.h"
#include "abi/ort_abi.h"

namespace gptoss {

struct Domain {
  const char* name;
  std::vector<const OrtCustomOp*> operators;
};

constexpr const char* kDomain = "ai.gptoss";
constexpr const char* kSelfCheckDomain = "ai.gptoss.selfcheck";

// The same operators for every activation mode, as objects of their own, because a session tells
// the library its mode once. They live as long as the process, as ONNX Runtime keeps pointers to
// them.
const std::vector<Domain>& domains(Activations activations);

}  // namespace gptoss

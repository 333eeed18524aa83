// SelfCheck(x float (n)) -> y float (n), y = 2x: proves on the machine's own ONNX Runtime that the
// entry point, the hand-written ABI, the thread pool and the error path work, before any real
// kernel is trusted.
#pragma once

#include "abi/context.h"
#include "abi/ort_abi.h"

namespace gptoss {

class SelfCheck {
 public:
  static constexpr const char* kName = "SelfCheck";
  static constexpr Port kInputs[] = {{"x", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};
  static constexpr Port kOutputs[] = {{"y", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  SelfCheck(const OrtApi&, const OrtKernelInfo&) {}
  void compute(const Context& context) const;
};

}  // namespace gptoss

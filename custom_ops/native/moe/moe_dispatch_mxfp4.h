// MoEDispatchMXFP4: a routed mixture of experts on MXFP4 weights where they lie in the checkpoint.
// Definition: custom_ops/moe_dispatch.py.
#pragma once

#include "machine/activations.h"
#include "abi/context.h"
#include "moe/moe_experts.h"
#include "moe/mxfp4.h"

namespace gptoss {

class MoEDispatchMXFP4 {
 public:
  static constexpr const char* kName = "MoEDispatchMXFP4";
  static constexpr Port kInputs[] = {
      {"hidden", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"router_logits", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"gate_up_blocks", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {"gate_up_scales", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {"gate_up_bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"down_blocks", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {"down_scales", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {"down_bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
  };
  static constexpr Port kOutputs[] = {{"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  MoEDispatchMXFP4(const OrtApi& api, const OrtKernelInfo& info, Activations activations);
  void compute(const Context& context) const;

 private:
  MoEAttributes attributes_;
  Mxfp4Kernels kernels_;
};

}  // namespace gptoss

// MoEDispatch: a routed mixture of experts on dense weights, one kernel for each type of weight.
// Definition: custom_ops/moe_dispatch.py.
#pragma once

#include "abi/context.h"
#include "linear/linear_columns.h"
#include "linear/linear_kernels.h"
#include "machine/activations.h"
#include "moe/moe_experts.h"

namespace gptoss {

class MoEDispatchCompute {
 public:
  MoEDispatchCompute(const OrtApi& api, const OrtKernelInfo& info, WeightType type,
                     Activations activations);
  void compute(const Context& context) const;

 private:
  MoEAttributes attributes_;
  bool transposed_;  // weights are (E, outputs, inputs)
  WeightType type_;
  Activations activations_;
  MultiplyColumns columns_;
  LinearKernels rows_;
};

template <WeightType type, ONNXTensorElementDataType element>
class MoEDispatch : public MoEDispatchCompute {
 public:
  static constexpr const char* kName = "MoEDispatch";
  static constexpr Port kInputs[] = {
      {"hidden", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"router_logits", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"gate_up", element},
      {"gate_up_bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"down", element},
      {"down_bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
  };
  static constexpr Port kOutputs[] = {{"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  MoEDispatch(const OrtApi& api, const OrtKernelInfo& info, Activations activations)
      : MoEDispatchCompute(api, info, type, activations) {}
};

using MoEDispatchFloat32 = MoEDispatch<WeightType::float32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT>;
using MoEDispatchFloat16 = MoEDispatch<WeightType::float16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16>;
using MoEDispatchBFloat16 =
    MoEDispatch<WeightType::bfloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16>;

}  // namespace gptoss

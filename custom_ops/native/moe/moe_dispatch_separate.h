// MoEDispatchSeparate: a routed mixture of experts on dense matrices that lie apart, wherever they
// are. Definition: custom_ops/moe_dispatch_separate.py.
#pragma once

#include "abi/context.h"
#include "linear/linear_kernels.h"
#include "machine/activations.h"
#include "moe/moe_experts.h"

namespace gptoss {

class MoEDispatchSeparateCompute {
 public:
  MoEDispatchSeparateCompute(const OrtApi& api, const OrtKernelInfo& info, WeightType type,
                             Activations activations);
  void compute(const Context& context) const;

 private:
  MoEAttributes attributes_;
  WeightType type_;
  Activations activations_;
  LinearKernels rows_;
};

template <WeightType type, ONNXTensorElementDataType element>
class MoEDispatchSeparate : public MoEDispatchSeparateCompute {
 public:
  static constexpr const char* kName = "MoEDispatchSeparate";
  // `weights` are E gates, E ups, E downs.
  static constexpr Port kInputs[] = {
      {"hidden", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"router_logits", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"weights", element, INPUT_OUTPUT_VARIADIC},
  };
  static constexpr Port kOutputs[] = {{"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  MoEDispatchSeparate(const OrtApi& api, const OrtKernelInfo& info, Activations activations)
      : MoEDispatchSeparateCompute(api, info, type, activations) {}
};

using MoEDispatchSeparateFloat32 =
    MoEDispatchSeparate<WeightType::float32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT>;
using MoEDispatchSeparateFloat16 =
    MoEDispatchSeparate<WeightType::float16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16>;
using MoEDispatchSeparateBFloat16 =
    MoEDispatchSeparate<WeightType::bfloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16>;

}  // namespace gptoss

// MoEDispatch: a routed mixture of experts on dense weights as Hugging Face stores them, one kernel for each dtype.
// Definition: custom_ops/moe_dispatch.py.
#pragma once

#include "machine/activations.h"
#include "abi/context.h"
#include "moe/moe_dense.h"
#include "moe/moe_experts.h"

namespace gptoss {

template <class T>
constexpr ONNXTensorElementDataType kElementType = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
template <>
inline constexpr ONNXTensorElementDataType kElementType<Float16> = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
template <>
inline constexpr ONNXTensorElementDataType kElementType<BFloat16> = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;

template <class T>  // float, Float16 or BFloat16
class MoEDispatch {
 public:
  static constexpr const char* kName = "MoEDispatch";
  static constexpr Port kInputs[] = {
      {"hidden", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"router_logits", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"gate_up", kElementType<T>},
      {"gate_up_bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"down", kElementType<T>},
      {"down_bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
  };
  static constexpr Port kOutputs[] = {{"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  MoEDispatch(const OrtApi& api, const OrtKernelInfo& info, Activations activations);
  void compute(const Context& context) const;

 private:
  MoEAttributes attributes_;
  Activations activations_;
  DenseMultiply multiply_;
};

}  // namespace gptoss

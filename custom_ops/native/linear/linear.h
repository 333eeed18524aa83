// Linear(x float (N,K), weight (M,K), bias float (M) optional) -> output float (N,M), output = x ·
// weightᵀ + bias. With the attribute transposed = 1 the weight is (K,M).
//
// The weight is read where it lies, in float32, float16 or bfloat16; the arithmetic is float32. One
// operator for each type of weight, all of one name. Activation modes bf16 and int8 both round x to
// bfloat16: 8 bits would be no faster on weights of 16.
#pragma once

#include "machine/activations.h"
#include "abi/context.h"
#include "linear/linear_kernels.h"
#include "linear/linear_product.h"
#include "linear/linear_transposed.h"
#include "abi/ort_abi.h"

namespace gptoss {

class LinearCompute {
 public:
  LinearCompute(const OrtApi& api, const OrtKernelInfo& info, WeightType type,
                Activations activations);
  void compute(const Context& context) const;

 private:
  bool transposed_;
  WeightType type_;
  LinearProduct product_;
  LinearTransposed transposed_product_;
};

template <WeightType type, ONNXTensorElementDataType element>
class Linear : public LinearCompute {
 public:
  static constexpr const char* kName = "Linear";
  static constexpr Port kInputs[] = {
      {"x", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"weight", element},
      {"bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL}};
  static constexpr Port kOutputs[] = {{"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  Linear(const OrtApi& api, const OrtKernelInfo& info, Activations activations)
      : LinearCompute(api, info, type, activations) {}
};

using LinearFloat32 = Linear<WeightType::float32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT>;
using LinearFloat16 = Linear<WeightType::float16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16>;
using LinearBFloat16 = Linear<WeightType::bfloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16>;

}  // namespace gptoss

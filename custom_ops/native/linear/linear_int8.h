// LinearInt8(x float (N,K), weight int8 (M,K), scales float (M,K/32), bias float (M) optional) ->
// output float (N,M), output = x · (weight · scales)ᵀ + bias, where a scale multiplies 32
// neighbours of a row.
//
// The weight is read where it lies. Activation mode exact keeps float32's 24 bits, bf16 rounds x to
// bfloat16, int8 to 8 bits with one scale for each 32 values; with VNNI all three multiply
// integers. AMX multiplies many tokens in bfloat16. There, mode exact splits x, and weight times
// scale, into two bfloat16 terms each; modes bf16 and int8 both round them to one.
#pragma once

#include "machine/activations.h"
#include "abi/context.h"
#include "linear/linear_kernels.h"
#include "linear/linear_product.h"
#include "abi/ort_abi.h"

namespace gptoss {

class LinearInt8 {
 public:
  static constexpr const char* kName = "LinearInt8";
  static constexpr Port kInputs[] = {
      {"x", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"weight", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
      {"scales", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL}};
  static constexpr Port kOutputs[] = {{"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  LinearInt8(const OrtApi&, const OrtKernelInfo&, Activations activations);
  void compute(const Context& context) const;

 private:
  LinearProduct vectors_, tiles_;  // tiles are AMX's
  size_t vector_tokens_;           // the most tokens that vectors are for
};

}  // namespace gptoss

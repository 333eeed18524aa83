// LinearPacked(x float (N,K), low uint8 (M,K), high uint8 (M,K/2), bases uint8 (M), positions int32
// (X,2), values bfloat16 (X), bias float (M) optional) -> output float (N,M), output =
// x · weightᵀ + bias on a bfloat16 weight (M,K) that is held in 12 bits without loss. K is a
// multiple of 64.
//
// `low` has the lower byte of each weight: the last bit of its exponent, and its mantissa. `high`
// has 4 bits for the upper byte: the sign, and 3 bits c. For c of 1 to 7 the upper seven bits of
// the exponent are the row's base + c; with c = 0 the weight is a zero, and its lower byte zero as
// well. Of 64 neighbours of a row, number i < 32 is the lower half of byte i and number 32 + i the
// upper. Weights of other exponents are exceptions: zero there, and listed in the order of their
// (row, column) with their values, which are added. A listed zero changes nothing.
//
// Few tokens: 12 bits are read for each weight and widened in registers. Many: a block of rows
// becomes the bfloat16 that it stands for, and Linear's own kernel multiplies it.
#pragma once

#include "machine/activations.h"
#include "abi/context.h"
#include "linear/linear_kernels.h"
#include "linear/linear_packed_kernels.h"
#include "linear/linear_product.h"
#include "abi/ort_abi.h"

namespace gptoss {

class LinearPacked {
 public:
  static constexpr const char* kName = "LinearPacked";
  static constexpr Port kInputs[] = {
      {"x", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"low", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {"high", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {"bases", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {"positions", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
      {"values", ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16},
      {"bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL}};
  static constexpr Port kOutputs[] = {{"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

  LinearPacked(const OrtApi&, const OrtKernelInfo&, Activations activations);
  void compute(const Context& context) const;

 private:
  Activations activations_;
  PackedKernels kernels_;
  BlockedProduct stored_product_;
  LinearProduct product_;
};

}  // namespace gptoss

// Linear on a weight (K, M), as GPT-2's Conv1D stores it: how a call is spread over threads.
#pragma once

#include "abi/context.h"
#include "linear/linear_columns.h"
#include "linear/linear_kernels.h"
#include "machine/activations.h"

namespace gptoss {

class LinearTransposed {
 public:
  LinearTransposed(CpuLevel level, WeightType type, Activations activations)
      : multiply_(columns_kernel(level, type)), type_(type), activations_(activations) {}

  // Computes y of `call`, whose tokens are as they came and whose weight has rows of `row_bytes`.
  void compute(const Context& context, const LinearCall& call) const;

 private:
  void multiply_by_rows(const Context& context, const LinearCall& call) const;
  void multiply_by_columns(const Context& context, const LinearCall& call) const;
  WeightColumns columns(const LinearCall& call, size_t first, size_t count) const;

  MultiplyColumns multiply_;
  WeightType type_;
  Activations activations_;
};

}  // namespace gptoss

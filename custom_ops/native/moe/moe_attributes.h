// What the attributes of the MoE operators say. Definition: custom_ops/moe_attributes.py.
#pragma once

#include <cstddef>
#include <string>

#include "abi/ort_abi.h"

namespace gptoss {

enum class ExpertFunction { swiglu, gelu, gelu_tanh, relu, silu };

// What stands between the two projections of an expert.
struct ExpertActivation {
  ExpertFunction function;
  float alpha;       // of swiglu alone, as what follows: gain inside the sigmoid,
  float limit;       // clamp of gate (above) and up (both sides), ∞ clamps nothing,
  float beta;        // added to up,
  bool interleaved;  // even rows of gate_up are gates and odd ones ups; or else gates come first,
                     // then ups

  bool gated() const noexcept { return function == ExpertFunction::swiglu; }
  // Rows of gate_up for one row of the expert's width: gate and up, or one alone.
  size_t rows_each() const noexcept { return gated() ? 2 : 1; }
};

struct MoEAttributes {
  size_t top_k;
  bool normalize;  // shares are a softmax over the chosen experts; or else that over all, as it is
  ExpertActivation activation;

  // A legend such as "(E, 2I, Hd)" with I in the place of 2I where the activation has no gate.
  std::string spelled(const char* legend) const;
};

// Throws Error that names `op` where one is missing or senseless. `interleaved` is read where
// `layouts` says that the operator has it.
MoEAttributes read_moe_attributes(const OrtApi& api, const OrtKernelInfo& info, const char* op,
                                  bool layouts);

}  // namespace gptoss

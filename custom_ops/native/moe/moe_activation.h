// What stands between the two projections of an expert, on the products of one token.
#pragma once

#include <cstddef>

#include "machine/cpu_features.h"
#include "moe/moe_attributes.h"

namespace gptoss {

// The products behind `count` activations, and their biases, each null or at any address of a
// mapped file.
struct GateUp {
  float* gate;  // the activations take the place of the first `count`. Interleaved: pairs of gate
                // and up
  const float* up;  // of gates and ups that are apart
  const std::byte* gate_bias;
  const std::byte* up_bias;
  size_t count;
};

// Adds the biases and applies the function, in place. NaN stays NaN.
using Activate = void (*)(const GateUp& products, const ExpertActivation& activation);

// The kernel for this function and layout.
Activate activation_kernel(CpuLevel level, const ExpertActivation& activation);

Activate activation_scalar(const ExpertActivation& activation);
Activate activation_avx2(const ExpertActivation& activation);
Activate activation_avx512(const ExpertActivation& activation);

}  // namespace gptoss

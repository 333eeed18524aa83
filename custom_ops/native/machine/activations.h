// How narrow the activations that meet the weights may be: one choice for a whole session.
//
// Whatever the mode, every CPU level computes the same thing: a level without the mode's
// instructions rounds the activations in the same way and multiplies in float32.
#pragma once

#include <cstddef>
#include <string>

#include "abi/ort_abi.h"

namespace gptoss {

enum class Activations {
  exact,  // float32, or terms or digits that make it up (LinearInt8 at level amx: two terms)
  bf16,   // rounded to bfloat16, the precision the published model runs in
  int8,  // 8 bits with one scale for each 32 values; a kernel may keep more where that is no slower
};

constexpr Activations kActivations[] = {Activations::exact, Activations::bf16, Activations::int8};

const char* name_of(Activations activations) noexcept;

// Throws Error for a name that is none of the three.
Activations activations_named(const std::string& name);

// What the session's config entry `gptoss.activations` says; `exact` where it is not set. Throws
// Error for an unknown value. ONNX Runtime shows the options only while the library registers.
Activations session_activations(const OrtApi& api, const OrtSessionOptions& options);

// Writes x rounded to what the mode keeps; int8 has one scale for each 32 values from the first on.
void round_activations(Activations activations, const float* x, size_t count, float* out) noexcept;

}  // namespace gptoss

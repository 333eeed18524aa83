// gpt-oss's clamped SwiGLU, between the two projections of an expert.
#pragma once

#include <cstddef>

#include "machine/cpu_features.h"

namespace gptoss {

// Turns `count` interleaved pairs (gate, up), biases added, into activations, in place: the first `count` floats
// become (up + 1) · gate · σ(alpha · gate), gate clamped from above and up from both sides. NaN stays NaN.
// The bias may be an initializer at any address of a mapped file.
using SwiGLU = void (*)(float* pairs, const std::byte* bias, size_t count, float alpha, float limit);

SwiGLU swiglu_kernel(CpuLevel level);

void swiglu_scalar(float* pairs, const std::byte* bias, size_t count, float alpha, float limit);
void swiglu_avx512(float* pairs, const std::byte* bias, size_t count, float alpha, float limit);

}  // namespace gptoss

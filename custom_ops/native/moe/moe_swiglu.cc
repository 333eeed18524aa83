#include "moe/moe_swiglu.h"

#include <cmath>
#include <cstring>

namespace gptoss {

void swiglu_scalar(float* pairs, const std::byte* bias, size_t count, float alpha, float limit) {
  for (size_t i = 0; i < count; ++i) {
    float biases[2];
    std::memcpy(biases, bias + i * sizeof biases, sizeof biases);
    float gate = pairs[2 * i] + biases[0], up = pairs[2 * i + 1] + biases[1];
    gate = gate > limit ? limit : gate;  // a comparison with NaN is false
    up = up > limit ? limit : up < -limit ? -limit : up;
    pairs[i] = (up + 1) * gate / (1 + std::exp(-alpha * gate));
  }
}

SwiGLU swiglu_kernel(CpuLevel level) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx512) return swiglu_avx512;
#endif
  (void)level;
  return swiglu_scalar;
}

}  // namespace gptoss

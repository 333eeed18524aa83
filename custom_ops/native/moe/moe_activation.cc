// The scalar kernels of the activations, and the choice among the levels.
#include "moe/moe_activation.h"

#include <cmath>
#include <cstring>

namespace gptoss {
namespace {

float bias_at(const std::byte* bias, size_t index) {
  if (bias == nullptr) return 0;
  float value;
  std::memcpy(&value, bias + index * sizeof value, sizeof value);
  return value;
}

// (up + beta) · gate · σ(alpha · gate), gate clamped from above and up from both sides.
float clamped_swiglu(float gate, float up, const ExpertActivation& activation) {
  const float limit = activation.limit;
  gate = gate > limit ? limit : gate;  // a comparison with NaN is false
  up = up > limit ? limit : up < -limit ? -limit : up;
  return (up + activation.beta) * gate / (1 + std::exp(-activation.alpha * gate));
}

void swiglu_of_pairs(const GateUp& products, const ExpertActivation& activation) {
  for (size_t i = 0; i < products.count; ++i) {
    const float gate = products.gate[2 * i] + bias_at(products.gate_bias, 2 * i);
    const float up = products.gate[2 * i + 1] + bias_at(products.gate_bias, 2 * i + 1);
    products.gate[i] = clamped_swiglu(gate, up, activation);
  }
}

void swiglu_of_halves(const GateUp& products, const ExpertActivation& activation) {
  for (size_t i = 0; i < products.count; ++i) {
    const float gate = products.gate[i] + bias_at(products.gate_bias, i);
    const float up = products.up[i] + bias_at(products.up_bias, i);
    products.gate[i] = clamped_swiglu(gate, up, activation);
  }
}

float gelu(float x) { return 0.5f * x * (1 + std::erf(x * 0.70710678f)); }  // 1/√2

// ½ x (1 + tanh(u)) = x σ(2u), u = √(2/π) (x + 0.044715 x³)
float gelu_tanh(float x) { return x / (1 + std::exp(-1.59576912f * (x + 0.044715f * x * x * x))); }

float relu(float x) { return x < 0 ? 0 : x; }

float silu(float x) { return x / (1 + std::exp(-x)); }

template <float (*function)(float)>
void ungated(const GateUp& products, const ExpertActivation&) {
  for (size_t i = 0; i < products.count; ++i) {
    products.gate[i] = function(products.gate[i] + bias_at(products.gate_bias, i));
  }
}

}  // namespace

Activate activation_scalar(const ExpertActivation& activation) {
  switch (activation.function) {
    case ExpertFunction::swiglu:
      return activation.interleaved ? swiglu_of_pairs : swiglu_of_halves;
    case ExpertFunction::gelu:
      return ungated<gelu>;
    case ExpertFunction::gelu_tanh:
      return ungated<gelu_tanh>;
    case ExpertFunction::relu:
      return ungated<relu>;
    case ExpertFunction::silu:
      return ungated<silu>;
  }
  return nullptr;
}

Activate activation_kernel(CpuLevel level, const ExpertActivation& activation) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx512) return activation_avx512(activation);
  if (level >= CpuLevel::avx2) return activation_avx2(activation);
#endif
  (void)level;
  return activation_scalar(activation);
}

}  // namespace gptoss

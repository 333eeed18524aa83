// Linear without vector instructions: the oracle of the other versions, and what runs on a
// machine that has none.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "linear/linear_kernels.h"

namespace gptoss {
namespace {

template <class T>
T load(const unsigned char* address) {
  T value;
  std::memcpy(&value, address, sizeof value);  // the address may be odd
  return value;
}

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float from_float16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = bits >> 10 & 31;
  const uint32_t fraction = bits & 1023;
  if (exponent == 0)
    return std::copysign(std::ldexp(static_cast<float>(fraction), -24), from_bits(sign));
  const uint32_t widened = exponent == 31 ? 255 : exponent + 127 - 15;
  return from_bits(sign | widened << 23 | fraction << 13);
}

template <WeightType type>
float weight_at(const unsigned char* row, size_t k) {
  const unsigned char* address = row + k * bytes_of(type);
  if constexpr (type == WeightType::float32) return load<float>(address);
  if constexpr (type == WeightType::float16) return from_float16(load<uint16_t>(address));
  if constexpr (type == WeightType::bfloat16)
    return from_bits(uint32_t{load<uint16_t>(address)} << 16);
}

template <WeightType type>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  for (size_t m = begin; m < end; ++m) {
    const unsigned char* row = call.weight + m * call.depth * bytes_of(type);
    for (size_t n = 0; n < call.tokens; ++n) {
      const float* x = call.x + n * call.depth;
      double sum = call.bias == nullptr ? 0.0 : call.bias[m];  // an oracle rounds once
      for (size_t k = 0; k < call.depth; ++k)
        sum += static_cast<double>(x[k]) * weight_at<type>(row, k);
      call.y[n * call.rows + m] = static_cast<float>(sum);
    }
  }
}

template <WeightType type>
constexpr LinearKernels kKernels{
    matrix_vector<type>, TokenFormat::float32, 1, nullptr, TokenFormat::float32, 1};

}  // namespace

LinearKernels linear_scalar(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return kKernels<WeightType::float32>;
    case WeightType::float16:
      return kKernels<WeightType::float16>;
    case WeightType::bfloat16:
      return kKernels<WeightType::bfloat16>;
  }
  return {};
}

}  // namespace gptoss

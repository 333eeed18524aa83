// Rounding to bfloat16, one value at a time.
//
// For files that are compiled for no level: the linker keeps one copy of an inline function.
#pragma once

#include <cstdint>
#include <cstring>

namespace gptoss {

inline float float_of(uint32_t bits) noexcept {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The bits of the nearest bfloat16, ties to even; NaN stays NaN.
inline uint16_t bfloat16_bits(float value) noexcept {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  bits = nan ? bits | 0x00400000 : bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<uint16_t>(bits >> 16);
}

inline float round_to_bf16(float value) noexcept {
  return float_of(uint32_t{bfloat16_bits(value)} << 16);
}

}  // namespace gptoss

// Widening float16, one value at a time.
//
// For files that are compiled for no level: the linker keeps one copy of an inline function.
#pragma once

#include <cmath>
#include <cstdint>

#include "machine/bfloat16.h"

namespace gptoss {

inline float float_of_float16(uint16_t bits) noexcept {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = bits >> 10 & 31;
  const uint32_t fraction = bits & 1023;
  if (exponent == 0)
    return std::copysign(std::ldexp(static_cast<float>(fraction), -24), float_of(sign));
  const uint32_t widened = exponent == 31 ? 255 : exponent + 127 - 15;
  return float_of(sign | widened << 23 | fraction << 13);
}

}  // namespace gptoss

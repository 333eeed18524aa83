// Scalar conversions between float and the number formats of the cache; rounding is to nearest,
// ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#include "attention/attention.h"

namespace gptoss {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float widen(float x) { return x; }

inline float widen(BFloat16 x) { return float_of(uint32_t{x.bits} << 16); }

inline float widen(Float16 x) {
  const uint32_t sign = uint32_t{x.bits & 0x8000u} << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u)
    return float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);  // infinity, NaN
  // Shifted into place the exponent is 112 too small; the product also turns subnormals into normal
  // floats.
  constexpr float kTwoTo112 = 5192296858534827628530496329220096.0f;
  return float_of(sign | bits_of(float_of(magnitude << 13) * kTwoTo112));
}

inline void narrow(float x, float& out) { out = x; }

inline void narrow(float x, BFloat16& out) {
  const uint32_t bits = bits_of(x);
  if (x != x) {
    out.bits =
        static_cast<uint16_t>(bits >> 16 | 0x40u);  // quiet, so that no NaN becomes an infinity
    return;
  }
  out.bits = static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline void narrow(float x, Float16& out) {
  const uint32_t sign = bits_of(x) >> 16 & 0x8000u;
  const uint32_t magnitude = bits_of(x) & 0x7fffffffu;
  uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and more round to infinity
  } else if (magnitude < 0x38800000u) {
    // A subnormal counts units of 2^-24. Adding 2^-1, whose own unit is 2^-24, makes the sum round
    // to them.
    half = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  out.bits = static_cast<uint16_t>(sign | half);
}

}  // namespace gptoss

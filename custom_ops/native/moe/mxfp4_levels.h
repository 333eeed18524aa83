// MXFP4's levels as integers, and the integers that activations become to multiply them: what all
// kernels with eight-bit dot products share.
//
// Everything is in an anonymous namespace (CMakeLists.txt says why).
#pragma once

#include "moe/mxfp4.h"

namespace gptoss {
namespace {

constexpr int kOffset =
    12;  // added to doubled levels, −12 … 12, because one side of a dot product is unsigned

// By nibble, the doubled level and the offset.
struct alignas(16) OffsetLevels {
  uint8_t bytes[16];
};

constexpr OffsetLevels offset_levels() {
  OffsetLevels levels{};
  for (size_t nibble = 0; nibble < 16; ++nibble) {
    levels.bytes[nibble] = static_cast<uint8_t>(static_cast<int>(2 * kLevels[nibble]) + kOffset);
  }
  return levels;
}

constexpr OffsetLevels kOffsetLevels = offset_levels();

// The largest integer of a block, so that 32 products of it with 12 fit in an int32.
template <size_t digits>
constexpr float kLargest = digits == 1   ? 127.0f
                           : digits == 2 ? 127.0f * 256
                                         : 4194304.0f;

}  // namespace
}  // namespace gptoss

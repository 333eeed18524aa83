// Nibbles to levels with AVX-512.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include "moe/mxfp4_levels.h"

namespace gptoss {
namespace {

// The offset levels in each quarter of a register, for instructions that look up nibbles.
__m512i level_table() {
  return _mm512_broadcast_i32x4(
      _mm_load_si128(reinterpret_cast<const __m128i*>(kOffsetLevels.bytes)));
}

// By a shuffle within 16 bytes.
struct ShuffleNibbles {
  static __m512i low(__m512i bytes) {
    return _mm512_shuffle_epi8(level_table(), _mm512_and_si512(bytes, _mm512_set1_epi8(15)));
  }
  static __m512i high(__m512i bytes) { return low(_mm512_srli_epi16(bytes, 4)); }
};

}  // namespace
}  // namespace gptoss

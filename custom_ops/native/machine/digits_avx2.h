// Values as integers of a common scale with AVX2: as machine/digits.h, which is of AVX-512, has
// them.
//
// Included by files that are compiled with AVX2 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace gptoss {
namespace {

constexpr float kSmallest =
    0x1p-100f;  // values below it count as zero: their inverse scale would overflow

// 32 values ≈ integers × scale. The scale of a block with NaN or an infinity is NaN, and so is then
// what it multiplies.
struct BlockIntegers {
  __m256i eights[4];
  float scale;
};

// To the nearest bfloat16, ties to even; what is not finite is caught by its block's scale.
inline __m256 round_to_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  return _mm256_castsi256_ps(_mm256_and_si256(up, upper));
}

// The greatest of positive floats, given as bits, whose order is that of the numbers, with NaN and
// infinity on top.
inline float largest_lane(__m256i bits) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(half));
}

// The 32 values from x on, rounded to bfloat16 first where `rounded`; the greatest magnitude
// becomes `largest`.
template <bool rounded>
BlockIntegers to_integers(const float* x, float largest) {
  __m256 values[4];
  __m256i greatest_bits = _mm256_setzero_si256();
  for (size_t i = 0; i < 4; ++i) {
    values[i] = _mm256_loadu_ps(x + 8 * i);
    if constexpr (rounded) values[i] = round_to_bf16(values[i]);
    const __m256i bits =
        _mm256_and_si256(_mm256_castps_si256(values[i]), _mm256_set1_epi32(0x7fffffff));
    greatest_bits = _mm256_max_epi32(greatest_bits, bits);
  }
  const float greatest = largest_lane(greatest_bits);
  const bool finite = greatest <= 0x1.fffffep127f, usable = finite && greatest >= kSmallest;
  const __m256 inverse = _mm256_set1_ps(largest / greatest);
  BlockIntegers block;
  for (size_t i = 0; i < 4; ++i) {
    block.eights[i] =
        usable ? _mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse)) : _mm256_setzero_si256();
  }
  // greatest − greatest is NaN where it is NaN or infinite.
  block.scale = usable ? greatest / largest : finite ? 0.0f : greatest - greatest;
  return block;
}

inline int sum_of(__m128i x) {
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

}  // namespace
}  // namespace gptoss

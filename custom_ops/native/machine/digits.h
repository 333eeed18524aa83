// Values as integers of a common scale, in signed digits of base 256: what eight-bit dot products
// multiply.
//
// 32 values become integers below a bound, so that their products with a block of integer weights
// add up without error; each digit takes one pass of dot products over the weights. Included by
// files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "machine/vectors_avx512.h"

namespace gptoss {
namespace {

constexpr size_t kLanes = 16;
constexpr float kSmallest =
    0x1p-100f;  // values below it count as zero: their inverse scale would overflow

// 32 values ≈ integers × scale. The scale of a block with NaN or an infinity is NaN, and so is then
// what it multiplies.
struct BlockIntegers {
  __m512i first, second;
  float scale;
};

// The 32 values from x on, rounded to bfloat16 first where `rounded`; the greatest magnitude
// becomes `largest`.
template <bool rounded>
BlockIntegers to_integers(const float* x, float largest) {
  __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + kLanes);
  if constexpr (rounded) {
    a = Floats16::round_to_bf16(a);
    b = Floats16::round_to_bf16(b);
  }
  // The greatest magnitude as bits, whose order is that of the numbers, with NaN and infinity on
  // top.
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), magnitude),
                                        _mm512_and_si512(_mm512_castps_si512(b), magnitude));
  const float greatest =
      _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(bits))));
  const bool finite = greatest <= 0x1.fffffep127f, usable = finite && greatest >= kSmallest;
  const __m512 inverse = _mm512_set1_ps(usable ? largest / greatest : 0.0f);
  const __mmask16 keep = usable ? 0xffff : 0;  // what is NaN or infinite has no integer
  // greatest − greatest is NaN where it is NaN or infinite.
  const float scale = finite ? (usable ? greatest / largest : 0.0f) : greatest - greatest;
  return {_mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(a, inverse)),
          _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(b, inverse)), scale};
}

// Writes the digits of 16 integers, the last digit first: 16 bytes from `place` on in each row of
// `values`.
template <size_t digits, size_t row_bytes>
void store_digits(__m512i integers, int8_t (&values)[digits][row_bytes], size_t place) {
  for (size_t digit = 0; digit < digits; ++digit) {
    const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(integers, 24), 24);
    _mm_store_si128(reinterpret_cast<__m128i*>(values[digit] + place), _mm512_cvtepi32_epi8(low));
    integers = _mm512_srai_epi32(_mm512_sub_epi32(integers, low), 8);
  }
}

}  // namespace
}  // namespace gptoss

// A block at a time, from a table of the eight levels times its scale.
#include <immintrin.h>

#include "encoding/mxfp4_decode.h"

namespace gptoss {
namespace {

__m256 factors(unsigned char scale) {
  const int bits = scale == 255 ? 0x7fc00000 : scale > 0 ? scale << 23 : 1 << 22;
  return _mm256_castsi256_ps(_mm256_set1_epi32(bits));
}

// The numbers of eight codes, a byte each.
__m256 numbers_of(__m128i codes, __m256 table) {
  const __m256i wide = _mm256_cvtepu8_epi32(codes);
  const __m256 sizes = _mm256_permutevar8x32_ps(table, wide);  // by the lowest three bits
  const __m256i signs = _mm256_and_si256(_mm256_slli_epi32(wide, 28), _mm256_set1_epi32(1 << 31));
  return _mm256_xor_ps(sizes, _mm256_castsi256_ps(signs));
}

}  // namespace

void decode_avx2(const unsigned char* codes, const unsigned char* scales, int64_t count,
                 float* numbers) {
  const __m256 levels = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
  const __m128i low_nibbles = _mm_set1_epi8(15);
  for (int64_t block = 0; block < count; ++block, codes += 16, numbers += 32) {
    const __m256 table = _mm256_mul_ps(levels, factors(scales[block]));
    const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m128i even = _mm_and_si128(pairs, low_nibbles);
    const __m128i odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), low_nibbles);
    const __m128i halves[2] = {_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)};
    for (int half = 0; half < 2; ++half) {
      const __m128i rest = _mm_srli_si128(halves[half], 8);
      _mm256_storeu_ps(numbers + 16 * half, numbers_of(halves[half], table));
      _mm256_storeu_ps(numbers + 16 * half + 8, numbers_of(rest, table));
    }
  }
}

}  // namespace gptoss

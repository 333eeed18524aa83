// How LinearPacked's weights are unpacked with AVX-512, as linear_packed_rows.h asks.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include "linear/linear_packed_rows.h"
#include "machine/vectors_avx512.h"

namespace gptoss {
namespace {

struct Unpack512 {
  using Uppers = __m512i;
  static constexpr size_t kGroup = 64;

  // Quarter q of `first` holds weights 16 q to 16 q + 7, of `second` 16 q + 8 to 16 q + 15.
  struct Weights {
    __m512i first, second;
  };

  // The upper byte of each code: the sign, and the base + c where c is not 0.
  static __m512i upper_bytes(unsigned char base) {
    const __m512i codes = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -128, -127, -126, -125, -124, -123, -122, -121));
    return _mm512_mask_add_epi8(codes, 0xfefefefefefefefe, codes,
                                _mm512_set1_epi8(static_cast<char>(base)));
  }

  static Weights unpack(const unsigned char* low, const unsigned char* high, size_t,
                        __m512i uppers) {
    const __m512i lower = _mm512_loadu_si512(low);
    const __m512i twice =
        _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
    const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_setzero_si256(), 0);
    const __m512i codes = _mm512_and_si512(_mm512_srlv_epi16(twice, shift), _mm512_set1_epi8(15));
    const __m512i upper = _mm512_shuffle_epi8(uppers, codes);
    return {_mm512_unpacklo_epi8(lower, upper), _mm512_unpackhi_epi8(lower, upper)};
  }

  static void store(const Weights& weights, uint16_t* out) {
    const __m512i lower_half = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i upper_half = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi64(weights.first, lower_half, weights.second));
    _mm512_storeu_si512(out + 32,
                        _mm512_permutex2var_epi64(weights.first, upper_half, weights.second));
  }

  static __m512 even(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
  static __m512 odd(__m512i pairs) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
  }
};

}  // namespace
}  // namespace gptoss

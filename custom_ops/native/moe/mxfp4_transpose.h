// Sixteen rows' bytes across the lanes of registers, as kernels want them whose lanes are rows.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include "moe/mxfp4.h"

namespace gptoss {
namespace {

// Sixteen bytes of sixteen rows: lane r of register i has bytes 4i … 4i + 3 of row r.
struct Across {
  __m512i dwords[4];
};

// `load(r)` gives the bytes of row r.
template <class Load>
[[gnu::always_inline]] inline Across transpose(const Load& load) {
  const auto four = [&](size_t r) {
    __m512i rows = _mm512_castsi128_si512(load(r));
    rows = _mm512_inserti32x4(rows, load(r + 4), 1);
    rows = _mm512_inserti32x4(rows, load(r + 8), 2);
    return _mm512_inserti32x4(rows, load(r + 12), 3);
  };
  const __m512i a = four(0), b = four(1), c = four(2), d = four(3);
  const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
  return {{_mm512_unpacklo_epi64(ab_low, cd_low), _mm512_unpackhi_epi64(ab_low, cd_low),
           _mm512_unpacklo_epi64(ab_high, cd_high), _mm512_unpackhi_epi64(ab_high, cd_high)}};
}

// A block of sixteen rows, `stride` bytes from one to the next.
[[gnu::always_inline]] inline Across across(const uint8_t* bytes, size_t stride) {
  // In a loop the compiler would hold an address for each row, and has no registers for so many.
  asm("" : "+r"(bytes));
  const uint8_t* const quarters[4] = {bytes, bytes + 4 * stride, bytes + 8 * stride,
                                      bytes + 12 * stride};
  return transpose([&](size_t r) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(quarters[r / 4] + r % 4 * stride));
  });
}

// Scale bytes of up to sixteen blocks: no byte behind them is read, and those of further blocks are
// 1's.
Across scales_across(const uint8_t* scales, size_t stride, size_t count) {
  const auto here = static_cast<__mmask16>((1u << count) - 1);
  const __m128i one = _mm_set1_epi8(127);
  return transpose([&](size_t r) { return _mm_mask_loadu_epi8(one, here, scales + r * stride); });
}

// The scale bytes of one of those blocks, each where a float has its exponent.
__m512i exponents(const Across& scales, size_t block) {
  const __m512i turn = _mm512_set1_epi32((23 - 8 * static_cast<int>(block % 4)) & 31);
  return _mm512_and_si512(_mm512_rolv_epi32(scales.dwords[block / 4], turn),
                          _mm512_set1_epi32(0x7f800000));
}

// What they stand for (scale_factor).
__m512 factors(__m512i exponents) {
  const __m512i infinity = _mm512_set1_epi32(0x7f800000);
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(exponents, infinity);
  const __m512i bits = _mm512_mask_mov_epi32(
      exponents, _mm512_testn_epi32_mask(exponents, exponents), _mm512_set1_epi32(0x00400000));
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7fc00000)));
}

}  // namespace
}  // namespace gptoss

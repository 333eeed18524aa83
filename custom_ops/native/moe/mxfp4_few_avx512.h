// What MXFP4 times a few tokens is made of with AVX-512 (mxfp4_few.h).
//
// A Decode turns nibbles into doubled levels plus kOffset, as bytes (ShuffleNibbles), and Dots
// multiplies bytes and adds up.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include "machine/digits.h"
#include "moe/mxfp4_few.h"
#include "moe/mxfp4_nibbles.h"

namespace gptoss {
namespace {

// Pairs of products in 16 bits, of which four add up without overflow.
struct PairDots {
  static constexpr bool kNarrow = true;
  static __m512i add_products(__m512i sum, __m512i weights, __m512i values) {
    return _mm512_add_epi16(sum, _mm512_maddubs_epi16(weights, values));
  }
  static __m512i widen(__m512i sum) { return _mm512_madd_epi16(sum, _mm512_set1_epi16(1)); }
};

template <class Decode, class Dots>
struct FewAvx512 {
  using Ints = __m512i;
  using Floats = __m512;
  using Sum = Ints;
  static constexpr size_t kLanes = gptoss::kLanes;
  static constexpr size_t kRows = 2;
  static constexpr bool kNarrow = Dots::kNarrow;

  static Ints nothing() { return _mm512_setzero_si512(); }
  // Values that several rows meet, in a register: else the compiler loads them for each, and a
  // processor that loads one register a cycle (Zen 4) waits for loads. Sums in halves leave none.
  static Ints load(const int8_t* p) {
    const Ints values = _mm512_load_si512(p);
    return kNarrow ? values : kept(values);
  }
  static Ints load(const int32_t* p) { return _mm512_load_si512(p); }
  static Ints kept(Ints x) {
    __asm__("" : "+v"(x));
    return x;
  }
  static Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints times_256(Ints x) { return _mm512_slli_epi32(x, 8); }
  static Sum add_products(Sum sum, Ints weights, Ints values) {
    return Dots::add_products(sum, weights, values);
  }

  // Sums in halves, or in one piece.
  static Ints total(const Ints (&parts)[1]) { return parts[0]; }
  static Ints total(const Ints (&parts)[2]) {
    return add(Dots::widen(parts[0]), Dots::widen(parts[1]));
  }

  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats load(const float* p) { return _mm512_load_ps(p); }
  static Floats to_float(Ints x) { return _mm512_cvtepi32_ps(x); }
  static Floats product(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats add_product(Floats sum, Floats a, Floats b) { return _mm512_fmadd_ps(a, b, sum); }
  static float sum(Floats x) { return _mm512_reduce_add_ps(x); }

  // Up to 16 blocks, transposed: lane 4q + r of each register has four weights of quarter q of
  // register r as it comes from memory. Blocks that are not there are zeros.
  template <bool whole>
  static void decode(const uint8_t* bytes, size_t blocks, Ints (&weights)[8]) {
    Ints loaded[4];
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; ++r)
      loaded[r] = kept(whole ? _mm512_loadu_si512(bytes + r * 4 * kBlockBytes)
                             : load_quarters(bytes, blocks, r));
    const Ints ab_low = _mm512_unpacklo_epi32(loaded[0], loaded[1]);
    const Ints ab_high = _mm512_unpackhi_epi32(loaded[0], loaded[1]);
    const Ints cd_low = _mm512_unpacklo_epi32(loaded[2], loaded[3]);
    const Ints cd_high = _mm512_unpackhi_epi32(loaded[2], loaded[3]);
    const Ints groups[4] = {
        _mm512_unpacklo_epi64(ab_low, cd_low), _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high), _mm512_unpackhi_epi64(ab_high, cd_high)};
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      weights[i] = Decode::low(groups[i]);
      weights[4 + i] = Decode::high(groups[i]);
    }
  }

  static Ints load_quarters(const uint8_t* bytes, size_t blocks, size_t r) {
    const uint8_t* line = bytes + r * 4 * kBlockBytes;
    const size_t here = blocks <= 4 * r ? 0 : blocks - 4 * r < 4 ? blocks - 4 * r : 4;
    const __mmask64 mask = here == 4 ? ~__mmask64{0} : (__mmask64{1} << (here * kBlockBytes)) - 1;
    return _mm512_maskz_loadu_epi8(mask, line);
  }

  // The blocks' scales as powers of two, in the order of the transposition.
  template <bool careful, bool whole>
  static Floats scales(const uint8_t* scales, size_t blocks) {
    const __mmask16 here = static_cast<__mmask16>((1u << blocks) - 1);
    const __m128i loaded = whole ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))
                                 : _mm_maskz_loadu_epi8(here, scales);
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m128i bytes = _mm_shuffle_epi8(loaded, order);
    __m512i bits = _mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23);
    if constexpr (careful) {
      const __mmask16 nan = _mm512_cmpeq_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
      bits = _mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(bits, bits),
                                   _mm512_set1_epi32(0x00400000));
      bits = _mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7fc00000));
    }
    return _mm512_castsi512_ps(bits);
  }

  // The greatest of `so_far` and a row's scale bytes less one, by lanes of bytes: 0 and 255 become
  // the greatest two. A last register overlaps the one before it.
  static Ints find_edges(Ints so_far, const uint8_t* scales, size_t blocks) {
    const Ints less_one = _mm512_set1_epi8(-1);
    const auto find = [&](Ints bytes) {
      so_far = _mm512_max_epu8(so_far, _mm512_add_epi8(bytes, less_one));
    };
    for (size_t i = 0; i + 64 <= blocks; i += 64) find(_mm512_loadu_si512(scales + i));
    if (blocks < 64) {
      find(_mm512_mask_loadu_epi8(_mm512_set1_epi8(1), (__mmask64{1} << blocks) - 1, scales));
    } else {
      find(_mm512_loadu_si512(scales + blocks - 64));
    }
    return so_far;
  }
  static bool found_edge(Ints found) {
    return _mm512_cmpge_epu8_mask(found, _mm512_set1_epi8(static_cast<char>(254))) != 0;
  }

  // Writes the digits of a block's 32 values as integers below `largest`, the even ones first, and
  // their sum; returns their scale.
  template <bool rounded, size_t digits>
  static float split(const float* x, float largest, int8_t (&bytes)[digits][kBlock], int& sum) {
    const auto [first, second, scale] = to_integers<rounded>(x, largest);
    const Ints even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const Ints odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    store_digits(_mm512_permutex2var_epi32(first, even, second), bytes, 0);
    store_digits(_mm512_permutex2var_epi32(first, odd, second), bytes, kBlockBytes);
    sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
    return scale;
  }
};

}  // namespace
}  // namespace gptoss

// Vectors of 16 floats, as code that is written once for the vector widths names them; those of 8
// are in vectors_avx2.h.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include <cstddef>

namespace gptoss {
namespace {

struct Floats16 {
  using Vector = __m512;
  static constexpr size_t kLanes = 16;
  static constexpr size_t kRegisters = 32;

  // The first `count` lanes.
  static __mmask16 first(size_t count) {
    return static_cast<__mmask16>(count >= kLanes ? 0xffff : (1u << count) - 1);
  }

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector broadcast(float x) { return _mm512_set1_ps(x); }
  static Vector load(const void* address) { return _mm512_loadu_ps(address); }
  static Vector load_some(const void* address, size_t count) {
    return _mm512_maskz_loadu_ps(first(count), address);
  }
  static void store(float* address, Vector x) { _mm512_storeu_ps(address, x); }
  static void store_some(float* address, Vector x, size_t count) {
    _mm512_mask_storeu_ps(address, first(count), x);
  }
  static Vector sum(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector product(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
  static float total(Vector lanes) { return _mm512_reduce_add_ps(lanes); }

  // To the nearest bfloat16, ties to even; NaN stays NaN.
  static Vector round_to_bf16(Vector x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    const __m512 kept = _mm512_castsi512_ps(_mm512_and_si512(up, upper));
    return _mm512_mask_mov_ps(kept, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                              _mm512_set1_ps(__builtin_nanf("")));
  }

  // 16 values from any address, widened.
  static Vector from_float16(const void* address) { return _mm512_cvtph_ps(load_half(address)); }
  static Vector from_bfloat16(const void* address) {
    const __m512i wide = _mm512_cvtepu16_epi32(load_half(address));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static Vector from_int8(const void* address) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(address));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }

  // Transposes 16 rows: pairs of rows, then pairs of pairs, then quarters of the registers.
  static void transpose(Vector (&r)[kLanes]) {
    Vector t[kLanes];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      for (int j = 0; j < 2; ++j) {
        const __m512d low = _mm512_castps_pd(t[i + j]), high = _mm512_castps_pd(t[i + 2 + j]);
        r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
      }
    }
    // Now quarter q of r[4g + c] holds column 4q + c of rows 4g to 4g + 3.
    for (int c = 0; c < 4; ++c) {
      const Vector a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x44);
      const Vector b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xee);
      const Vector d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x44);
      const Vector e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xee);
      t[c] = _mm512_shuffle_f32x4(a, d, 0x88);
      t[4 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
      t[8 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
      t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
    }
    for (int i = 0; i < 16; ++i) r[i] = t[i];
  }

 private:
  static __m256i load_half(const void* address) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(address));
  }
};

}  // namespace
}  // namespace gptoss

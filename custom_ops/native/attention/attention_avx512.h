// Sixteen lanes for attention_tiles.h.
#pragma once

#include <immintrin.h>

#include "attention/attention_formats.h"

namespace gptoss {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kRows =
      8;  // 8 × 2 sums keep both multipliers busy; broadcasts come from memory

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F subtract(F a, F b) { return _mm512_sub_ps(a, b); }
  static F multiply(F a, F b) { return _mm512_mul_ps(a, b); }
  static F add_product(F sum, F a, F b) { return _mm512_fmadd_ps(a, b, sum); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where one is NaN
  static float first(F x) { return _mm512_cvtss_f32(x); }
  static float highest(F x) { return _mm512_reduce_max_ps(x); }
  static float add_up(F x) { return _mm512_reduce_add_ps(x); }

  // 2^x for x ≤ 0; NaN stays NaN.
  static F exp2(F x) {
    const __mmask16 counts = _mm512_cmp_ps_mask(x, set(kLeastExponent), _CMP_NLT_UQ);
    const F whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F part = _mm512_sub_ps(x, whole);
    F power = set(kExp2[5]);
    for (int i = 4; i >= 0; --i) power = _mm512_fmadd_ps(power, part, set(kExp2[i]));
    return _mm512_maskz_scalef_ps(counts, power, whole);
  }

  static void transpose(F (&x)[16]) {
    F y[16];
    for (int i = 0; i < 16; i += 2) {
      y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
      y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {  // 4 × 4 blocks within each 128-bit part
      for (int half = 0; half < 2; ++half) {
        x[i + 2 * half] = _mm512_shuffle_ps(y[i + half], y[i + half + 2], 0x44);
        x[i + 2 * half + 1] = _mm512_shuffle_ps(y[i + half], y[i + half + 2], 0xee);
      }
    }
    for (int i = 0; i < 4; ++i) {  // then a 4 × 4 transpose of the parts
      y[i] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
      y[i + 4] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
      y[i + 8] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
      y[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
      x[i] = _mm512_shuffle_f32x4(y[i], y[i + 8], 0x88);
      x[i + 8] = _mm512_shuffle_f32x4(y[i], y[i + 8], 0xdd);
      x[i + 4] = _mm512_shuffle_f32x4(y[i + 4], y[i + 12], 0x88);
      x[i + 12] = _mm512_shuffle_f32x4(y[i + 4], y[i + 12], 0xdd);
    }
  }

  // Up to 16 numbers from `p` on, of which `count` exist; the lanes after them are zero.
  static F widen(const float* p, int64_t count) { return _mm512_maskz_loadu_ps(lanes(count), p); }
  static F widen(const Float16* p, int64_t count) { return _mm512_cvtph_ps(load_half(p, count)); }
  static F widen(const BFloat16* p, int64_t count) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_half(p, count)), 16));
  }
  static F low_halves(F x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
  }
  static F high_halves(F x) {
    return _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static __m256i load_half(const void* p, int64_t count) {
    return _mm256_maskz_loadu_epi16(lanes(count), p);
  }

  static __mmask16 lanes(int64_t count) {
    return count >= kLanes ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
  }
};

}  // namespace
}  // namespace gptoss

// Vectors of 8 floats, as code that is written once for the vector widths names them; those of 16
// are in vectors_avx512.h.
//
// Included by files that are compiled with AVX2 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include <cstddef>

namespace gptoss {
namespace {

struct Floats8 {
  using Vector = __m256;
  static constexpr size_t kLanes = 8;
  static constexpr size_t kRegisters = 16;

  // The first `count` lanes.
  static __m256i first(size_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count < 8 ? count : 8)), lanes);
  }

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector broadcast(float x) { return _mm256_set1_ps(x); }
  static Vector load(const void* address) {
    return _mm256_loadu_ps(static_cast<const float*>(address));
  }
  // A masked store takes an AMD many times as long as one of a whole register.
  static Vector load_some(const void* address, size_t count) {
    if (count >= kLanes) return load(address);
    return _mm256_maskload_ps(static_cast<const float*>(address), first(count));
  }
  static void store(float* address, Vector x) { _mm256_storeu_ps(address, x); }
  static void store_some(float* address, Vector x, size_t count) {
    if (count >= kLanes) return store(address, x);
    _mm256_maskstore_ps(address, first(count), x);
  }
  static Vector sum(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector product(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm256_fmadd_ps(a, b, sum); }
  static float total(Vector lanes) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }

  // 8 values from any address, widened.
  static Vector from_float16(const void* address) { return _mm256_cvtph_ps(load_half(address)); }
  static Vector from_bfloat16(const void* address) {
    const __m256i wide = _mm256_cvtepu16_epi32(load_half(address));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static Vector from_int8(const void* address) {
    const __m128i bytes = _mm_loadl_epi64(static_cast<const __m128i*>(address));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }

  // Transposes 8 rows: pairs of rows, then pairs of pairs, then halves of the registers.
  static void transpose(Vector (&r)[kLanes]) {
    Vector t[kLanes];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      for (int j = 0; j < 2; ++j) {
        r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
        r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xee);
      }
    }
    // Now half h of r[4g + c] holds column 4h + c of rows 4g to 4g + 3.
    for (int c = 0; c < 4; ++c) {
      t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
      t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
    }
    for (int i = 0; i < 8; ++i) r[i] = t[i];
  }

 private:
  static __m128i load_half(const void* address) {
    return _mm_loadu_si128(static_cast<const __m128i*>(address));
  }
};

}  // namespace
}  // namespace gptoss

#include <immintrin.h>

#include "attention/attention_formats.h"

namespace gptoss {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kRows = 4;  // 4 × 2 sums, 2 keys and a query fit 16 registers

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F subtract(F a, F b) { return _mm256_sub_ps(a, b); }
  static F multiply(F a, F b) { return _mm256_mul_ps(a, b); }
  static F add_product(F sum, F a, F b) { return _mm256_fmadd_ps(a, b, sum); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where one is NaN
  static float first(F x) { return _mm256_cvtss_f32(x); }

  static float highest(F x) {
    x = _mm256_max_ps(x, _mm256_permute2f128_ps(x, x, 1));
    x = _mm256_max_ps(x, _mm256_permute_ps(x, 0x4e));
    return first(_mm256_max_ps(x, _mm256_permute_ps(x, 0xb1)));
  }

  static float add_up(F x) {
    x = _mm256_add_ps(x, _mm256_permute2f128_ps(x, x, 1));
    x = _mm256_add_ps(x, _mm256_permute_ps(x, 0x4e));
    return first(_mm256_add_ps(x, _mm256_permute_ps(x, 0xb1)));
  }

  // 2^x for x ≤ 0; NaN stays NaN.
  static F exp2(F x) {
    const F counts = _mm256_cmp_ps(x, set(kLeastExponent), _CMP_NLT_UQ);
    const F whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F part = _mm256_sub_ps(x, whole);
    F power = set(kExp2[5]);
    for (int i = 4; i >= 0; --i) power = _mm256_fmadd_ps(power, part, set(kExp2[i]));
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(counts, _mm256_mul_ps(power, _mm256_castsi256_ps(exponent)));
  }

  static void transpose(F (&x)[8]) {
    F y[8];
    for (int i = 0; i < 8; i += 2) {
      y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
      y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    F z[8];
    for (int i = 0; i < 8; i += 4) {
      for (int half = 0; half < 2; ++half) {
        z[i + 2 * half] = _mm256_shuffle_ps(y[i + half], y[i + half + 2], 0x44);
        z[i + 2 * half + 1] = _mm256_shuffle_ps(y[i + half], y[i + half + 2], 0xee);
      }
    }
    for (int i = 0; i < 4; ++i) {
      x[i] = _mm256_permute2f128_ps(z[i], z[i + 4], 0x20);
      x[i + 4] = _mm256_permute2f128_ps(z[i], z[i + 4], 0x31);
    }
  }

  // Up to 8 numbers from `p` on, of which `count` exist; none where it is negative. Pairs of
  // bfloat16, which count as one number each, may lie at any even address.
  template <class T>
  static F widen(const T* p, int64_t count) {
    if (count >= kLanes) return widen_full(p);
    T padded[kLanes] = {};
    if (count > 0) __builtin_memcpy(padded, p, static_cast<size_t>(count) * sizeof(T));
    return widen_full(padded);
  }

  static F widen_full(const float* p) { return load(p); }
  static F widen_full(const Float16* p) { return _mm256_cvtph_ps(load_half(p)); }
  static F widen_full(const BFloat16* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_half(p)), 16));
  }
  static F low_halves(F x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16));
  }
  static F high_halves(F x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static __m128i load_half(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
};

}  // namespace

template <class T>
void attend_avx2(const AttentionTask<T>& task) noexcept {
  attend_tiles<Avx2, Widened<Avx2, T>>(task);
}

template <>
void attend_avx2(const AttentionTask<BFloat16>& task) noexcept {
  attend_tiles<Avx2, WidenedPairs<Avx2>>(task);
}

template void attend_avx2(const AttentionTask<float>&) noexcept;
template void attend_avx2(const AttentionTask<Float16>&) noexcept;

}  // namespace gptoss

// MXFP4 times tokens with AVX2 and FMA in float32.
#include <immintrin.h>

#include "moe/mxfp4_float.h"

namespace gptoss {
namespace {

struct Avx2 {
  using Vector = __m256;
  static constexpr size_t kLanes = 8;
  static constexpr size_t kTileTokens = 2;  // 4 × 2 sums, 4 weights and a value in 16 registers

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector broadcast(float x) { return _mm256_set1_ps(x); }
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
  static Vector product(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm256_fmadd_ps(a, b, sum); }

  static float sum(Vector x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }

  // Three bits of a nibble choose a magnitude, the fourth becomes the sign.
  static Vector level(__m256i nibbles) {
    const __m256 magnitude = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kLevels), nibbles);
    const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(nibbles, _mm256_set1_epi32(8)), 28);
    return _mm256_xor_ps(magnitude, _mm256_castsi256_ps(sign));
  }

  static void levels(const uint8_t* bytes, Vector& low, Vector& high) {
    const __m256i lanes =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
    low = level(lanes);
    high = level(_mm256_srli_epi32(lanes, 4));
  }
};

}  // namespace

const Mxfp4Kernel& mxfp4_avx2(Activations activations) {
  return Mxfp4Float<Avx2>::kernel(activations);
}

}  // namespace gptoss

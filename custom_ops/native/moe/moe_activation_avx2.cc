// The activations with AVX2 and FMA.
#include "machine/vectors_avx2.h"
#include "moe/moe_activation_vectors.h"

namespace gptoss {
namespace {

struct Avx2 : Floats8 {
  static Vector least(Vector a, Vector b) { return _mm256_min_ps(a, b); }
  static Vector greatest(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector quotient(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  static Vector difference(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector nearest(Vector x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // In two halves, for a float has no exponent beyond 127. What is not finite stays so in x.
  static Vector times_power_of_two(Vector x, Vector n) {
    const Vector most = broadcast(250);  // either half has an exponent; 2^250 · x is infinite
    n = least(most, greatest(difference(zero(), most), n));
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return product(product(x, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
  }
  static Vector power_of_two(__m256i n) {
    const __m256i exponent = _mm256_add_epi32(n, _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  static void pairs(Vector a, Vector b, Vector& even, Vector& odd) {
    even = in_order(_mm256_shuffle_ps(a, b, 0x88));
    odd = in_order(_mm256_shuffle_ps(a, b, 0xdd));
  }
  // The shuffle has mixed the quarters of a and b.
  static Vector in_order(Vector x) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
  }
  static Vector beyond(Vector x, Vector limit, Vector y, Vector z) {
    return _mm256_blendv_ps(y, z, _mm256_cmp_ps(x, limit, _CMP_GT_OQ));
  }
};

}  // namespace

Activate activation_avx2(const ExpertActivation& activation) {
  return VectorActivation<Avx2>::kernel(activation);
}

}  // namespace gptoss

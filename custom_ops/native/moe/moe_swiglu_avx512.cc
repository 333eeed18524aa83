// Clamped SwiGLU with AVX-512.
#include <immintrin.h>

#include "moe/moe_swiglu.h"

namespace gptoss {
namespace {

constexpr size_t kLanes = 16;

// 2^x: a power of two times the series of 2^r for what is left, |r| ≤ 1/2; its first missing term is below 1e-8.
__m512 exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, whole);
  constexpr float kSeries[] = {1.52527338e-5f, 1.54035304e-4f, 1.33335581e-3f, 9.61812911e-3f,
                               5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f};  // ln(2)^n / n!, n = 7 … 0
  __m512 sum = _mm512_setzero_ps();
  for (const float term : kSeries) sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(term));
  return _mm512_scalef_ps(sum, whole);
}

}  // namespace

void swiglu_avx512(float* pairs, const std::byte* bias, size_t count, float alpha, float limit) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  const __m512 one = _mm512_set1_ps(1), top = _mm512_set1_ps(limit), bottom = _mm512_set1_ps(-limit);
  const __m512 gain = _mm512_set1_ps(-alpha * 1.44269504f);  // log2(e)
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const std::byte* biases = bias + 2 * i * sizeof(float);
    const __m512 a = _mm512_add_ps(_mm512_loadu_ps(pairs + 2 * i), _mm512_loadu_ps(biases));
    const __m512 b = _mm512_add_ps(_mm512_loadu_ps(pairs + 2 * i + kLanes),
                                   _mm512_loadu_ps(biases + kLanes * sizeof(float)));
    // The instructions return their second operand where one is NaN.
    const __m512 gate = _mm512_min_ps(top, _mm512_permutex2var_ps(a, even, b));
    const __m512 up = _mm512_max_ps(bottom, _mm512_min_ps(top, _mm512_permutex2var_ps(a, odd, b)));
    const __m512 below = _mm512_add_ps(one, exp2(_mm512_mul_ps(gain, gate)));
    _mm512_storeu_ps(pairs + i, _mm512_div_ps(_mm512_mul_ps(_mm512_add_ps(up, one), gate), below));
  }
  // In place: what is left has not been written over, since it lies beyond twice the activations.
  if (i == count) return;
  float left[2 * kLanes];
  for (size_t j = 0; j < 2 * (count - i); ++j) left[j] = pairs[2 * i + j];
  swiglu_scalar(left, bias + 2 * i * sizeof(float), count - i, alpha, limit);
  for (size_t j = 0; i + j < count; ++j) pairs[i + j] = left[j];
}

}  // namespace gptoss

// The activations with AVX-512.
#include <immintrin.h>

#include "moe/moe_activation.h"

namespace gptoss {
namespace {

constexpr size_t kLanes = 16;

// 2^x: a power of two times the series of 2^r for what is left, |r| ≤ 1/2; its first missing term
// is below 1e-8.
__m512 exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, whole);
  constexpr float kSeries[] = {
      1.52527338e-5f, 1.54035304e-4f, 1.33335581e-3f, 9.61812911e-3f,
      5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f};  // ln(2)^n / n!, n = 7 … 0
  __m512 sum = _mm512_setzero_ps();
  for (const float term : kSeries) sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(term));
  return _mm512_scalef_ps(sum, whole);
}

constexpr float kMinusLog2E = -1.44269504f;

__mmask16 first(size_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff : (1u << count) - 1);
}

// The first `left` products from `index` on and their biases, which may be null, added.
__m512 biased(const float* products, const std::byte* bias, size_t index, size_t left) {
  if (left >= kLanes) {
    const __m512 x = _mm512_loadu_ps(products + index);
    return bias == nullptr ? x : _mm512_add_ps(x, _mm512_loadu_ps(bias + index * sizeof(float)));
  }
  const __mmask16 mask = first(left);
  const __m512 x = _mm512_maskz_loadu_ps(mask, products + index);
  return bias == nullptr
             ? x
             : _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, bias + index * sizeof(float)));
}

// Without a mask where all lanes are meant, which is quicker to read back.
void store(float* out, size_t left, __m512 x) {
  if (left >= kLanes) return _mm512_storeu_ps(out, x);
  _mm512_mask_storeu_ps(out, first(left), x);
}

struct Pairs {
  static void load(const GateUp& products, size_t i, __m512& gate, __m512& up) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const size_t left = 2 * (products.count - i);
    const __m512 a = biased(products.gate, products.gate_bias, 2 * i, left);
    const __m512 b = biased(products.gate, products.gate_bias, 2 * i + kLanes,
                            left > kLanes ? left - kLanes : 0);
    gate = _mm512_permutex2var_ps(a, even, b);
    up = _mm512_permutex2var_ps(a, odd, b);
  }
};

struct Halves {
  static void load(const GateUp& products, size_t i, __m512& gate, __m512& up) {
    gate = biased(products.gate, products.gate_bias, i, products.count - i);
    up = biased(products.up, products.up_bias, i, products.count - i);
  }
};

template <class Layout>
void swiglu(const GateUp& products, const ExpertActivation& activation) {
  const __m512 top = _mm512_set1_ps(activation.limit), bottom = _mm512_set1_ps(-activation.limit);
  const __m512 gain = _mm512_set1_ps(activation.alpha * kMinusLog2E),
               beta = _mm512_set1_ps(activation.beta);
  for (size_t i = 0; i < products.count; i += kLanes) {
    __m512 gate, up;
    Layout::load(products, i, gate, up);
    // The instructions return their second operand where one is NaN.
    gate = _mm512_min_ps(top, gate);
    up = _mm512_max_ps(bottom, _mm512_min_ps(top, up));
    const __m512 below = _mm512_add_ps(_mm512_set1_ps(1), exp2(_mm512_mul_ps(gain, gate)));
    const __m512 result = _mm512_div_ps(_mm512_mul_ps(_mm512_add_ps(up, beta), gate), below);
    store(products.gate + i, products.count - i, result);
  }
}

// Horner's rule, the highest term first.
template <size_t terms>
__m512 polynomial(const float (&series)[terms], __m512 x) {
  __m512 sum = _mm512_set1_ps(series[0]);
  for (size_t i = 1; i < terms; ++i) sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(series[i]));
  return sum;
}

// x · P(x²) / Q(x²), Eigen's generic_fast_erf_float, within 5e-7 up to |x| = 4; beyond, erf is ±1
// in float32.
__m512 erf(__m512 x) {
  constexpr float kP[] = {-2.72614226e-10f, 2.77068142e-8f,  -2.10102402e-6f, -5.69250639e-5f,
                          -7.34990631e-4f,  -2.95459980e-3f, -1.60960333e-2f};
  constexpr float kQ[] = {-1.45660718e-5f, -2.13374055e-4f, -1.68282697e-3f, -7.37332917e-3f,
                          -1.42647391e-2f};
  const __m512 square = _mm512_mul_ps(x, x);
  const __m512 inside =
      _mm512_div_ps(_mm512_mul_ps(x, polynomial(kP, square)), polynomial(kQ, square));
  const __m512 four = _mm512_set1_ps(4), one = _mm512_set1_ps(1);
  const __m512 above = _mm512_mask_mov_ps(inside, _mm512_cmp_ps_mask(x, four, _CMP_GT_OQ), one);
  const __mmask16 below =
      _mm512_cmp_ps_mask(x, _mm512_sub_ps(_mm512_setzero_ps(), four), _CMP_LT_OQ);
  return _mm512_mask_mov_ps(above, below, _mm512_sub_ps(_mm512_setzero_ps(), one));
}

__m512 gelu(__m512 x) {
  const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
  return _mm512_mul_ps(
      half, _mm512_add_ps(_mm512_set1_ps(1), erf(_mm512_mul_ps(x, _mm512_set1_ps(0.70710678f)))));
}

// x · σ(y), given −log2(e) · y.
__m512 times_sigmoid(__m512 x, __m512 exponent) {
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), exp2(exponent)));
}

__m512 gelu_tanh(__m512 x) {
  const __m512 cubic =
      _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_mul_ps(x, _mm512_set1_ps(0.044715f)));
  return times_sigmoid(
      x, _mm512_mul_ps(_mm512_add_ps(x, cubic), _mm512_set1_ps(1.59576912f * kMinusLog2E)));
}

__m512 relu(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }

__m512 silu(__m512 x) { return times_sigmoid(x, _mm512_mul_ps(x, _mm512_set1_ps(kMinusLog2E))); }

template <__m512 (*function)(__m512)>
void ungated(const GateUp& products, const ExpertActivation&) {
  for (size_t i = 0; i < products.count; i += kLanes) {
    const __m512 x = biased(products.gate, products.gate_bias, i, products.count - i);
    store(products.gate + i, products.count - i, function(x));
  }
}

}  // namespace

Activate activation_avx512(const ExpertActivation& activation) {
  switch (activation.function) {
    case ExpertFunction::swiglu:
      return activation.interleaved ? swiglu<Pairs> : swiglu<Halves>;
    case ExpertFunction::gelu:
      return ungated<gelu>;
    case ExpertFunction::gelu_tanh:
      return ungated<gelu_tanh>;
    case ExpertFunction::relu:
      return ungated<relu>;
    case ExpertFunction::silu:
      return ungated<silu>;
  }
  return nullptr;
}

}  // namespace gptoss

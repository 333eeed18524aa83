// Weights by columns with AVX2, FMA and F16C.
#include <immintrin.h>

#include "linear/linear_columns_tiles.h"

namespace gptoss {
namespace {

struct Avx2 {
  using Vector = __m256;
  static constexpr size_t kLanes = 8;
  static constexpr size_t kTokens = 4, kVectors = 2;  // 8 sums, 2 weights and a value

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector broadcast(float x) { return _mm256_set1_ps(x); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm256_fmadd_ps(a, b, sum); }
  static __m128i bits(const std::byte* address) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(address));
  }
  static Vector load(const std::byte* address, float) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(address));
  }
  static Vector load(const std::byte* address, Float16) { return _mm256_cvtph_ps(bits(address)); }
  static Vector load(const std::byte* address, BFloat16) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits(address)), 16));
  }
  static void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
  static void store_some(float* p, Vector x, size_t lanes) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(lanes)), lane), x);
  }
};

}  // namespace

MultiplyColumns columns_avx2(WeightType type) { return columns_of<Avx2>(type); }

}  // namespace gptoss

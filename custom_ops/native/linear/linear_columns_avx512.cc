// Weights by columns with AVX-512.
#include <immintrin.h>

#include "linear/linear_columns_tiles.h"

namespace gptoss {
namespace {

struct Avx512 {
  using Vector = __m512;
  static constexpr size_t kLanes = 16;
  static constexpr size_t kTokens = 6, kVectors = 4;  // 24 sums, 4 weights and a value

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector broadcast(float x) { return _mm512_set1_ps(x); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
  static __m256i bits(const std::byte* address) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(address));
  }
  static Vector load(const std::byte* address, float) { return _mm512_loadu_ps(address); }
  static Vector load(const std::byte* address, Float16) { return _mm512_cvtph_ps(bits(address)); }
  static Vector load(const std::byte* address, BFloat16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits(address)), 16));
  }
  static void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
  static void store_some(float* p, Vector x, size_t lanes) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << lanes) - 1), x);
  }
};

}  // namespace

MultiplyColumns columns_avx512(WeightType type) { return columns_of<Avx512>(type); }

}  // namespace gptoss

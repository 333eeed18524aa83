// Dense experts with AVX-512.
#include <immintrin.h>

#include "moe/moe_dense_tiles.h"

namespace gptoss {
namespace {

struct Avx512 {
  using Vector = __m512;
  static constexpr size_t kLanes = 16;
  static constexpr size_t kTokens = 6, kVectors = 4;  // 24 sums, 4 weights and a value
  static constexpr size_t kWideVectors = 16;

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
  static void store_some(float* p, Vector x, size_t lanes) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << lanes) - 1), x);
  }
};

}  // namespace

template <class T>
void dense_avx512(const DenseColumns& columns, const float* x, size_t tokens, float* out, size_t stride) {
  DenseTiles<Avx512, T>::multiply(columns, x, tokens, out, stride);
}

template void dense_avx512<float>(const DenseColumns&, const float*, size_t, float*, size_t);
template void dense_avx512<Float16>(const DenseColumns&, const float*, size_t, float*, size_t);
template void dense_avx512<BFloat16>(const DenseColumns&, const float*, size_t, float*, size_t);

}  // namespace gptoss

// MXFP4 times tokens with AVX-512 in float32: sixteen nibbles become levels with one permutation of
// a register.
#include <immintrin.h>

#include "moe/mxfp4_float.h"

namespace gptoss {
namespace {

struct Avx512 {
  using Vector = __m512;
  static constexpr size_t kLanes = 16;
  static constexpr size_t kTileTokens = 6;  // 4 × 6 sums, 4 weights and a value fill the registers

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector broadcast(float x) { return _mm512_set1_ps(x); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
  static Vector product(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
  static float sum(Vector x) { return _mm512_reduce_add_ps(x); }

  // A permutation looks at the low four bits of each lane only.
  static void levels(const uint8_t* bytes, Vector& low, Vector& high) {
    const Vector table = _mm512_loadu_ps(kLevels);
    const __m512i lanes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    low = _mm512_permutexvar_ps(lanes, table);
    high = _mm512_permutexvar_ps(_mm512_srli_epi32(lanes, 4), table);
  }
};

}  // namespace

const Mxfp4Kernel& mxfp4_avx512(Activations activations) {
  return Mxfp4Float<Avx512>::kernel(activations);
}

}  // namespace gptoss

// MXFP4 times many tokens with AVX-512 that lacks VNNI: in float32, and in bytes where activations
// have 8 bits.
#include "moe/mxfp4_many_float.h"
#include "moe/mxfp4_many_int8.h"
#include "moe/mxfp4_nibbles.h"
#include "moe/mxfp4_transpose.h"

namespace gptoss {
namespace {

struct Avx512 {
  using Vector = __m512;
  using Ints = __m512i;
  using Scales = Across;
  static constexpr size_t kLanes = 16;
  static constexpr size_t kFloatTokens = 12;  // 2 × 12 sums, 2 weights and a value in 32 registers
  static constexpr size_t kByteTokens = 8;    // 2 × 8 sums

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector broadcast(float x) { return _mm512_set1_ps(x); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
  static Vector sum(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector product(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }

  static Across across(const uint8_t* bytes, size_t stride) {
    return gptoss::across(bytes, stride);
  }
  static Across scales(const uint8_t* scales, size_t stride, size_t count) {
    return scales_across(scales, stride, count);
  }
  static Vector factors(const Across& scales, size_t block) {
    return gptoss::factors(exponents(scales, block));
  }
  static Ints next_nibbles(Ints x) { return _mm512_srli_epi32(x, 4); }
  // A permutation looks at the low four bits of each lane only.
  static Vector levels(Ints nibbles) {
    return _mm512_permutexvar_ps(nibbles, _mm512_loadu_ps(kLevels));
  }

  static Ints load(const uint8_t* p) { return _mm512_load_si512(p); }
  static void store(uint8_t* p, Ints x) { _mm512_store_si512(p, x); }
  static Ints broadcast(int32_t x) { return _mm512_set1_epi32(x); }
  static Ints offset_levels(Ints nibbles) { return ShuffleNibbles::low(nibbles); }
  static Ints add_pairs(Ints sum, Ints weights, Ints values) {
    return _mm512_add_epi16(sum, _mm512_maddubs_epi16(weights, values));
  }
  static Vector total(Ints pairs) {
    return _mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};

}  // namespace

const Mxfp4Kernel& mxfp4_many_avx512(Activations activations) {
  return activations == Activations::int8 ? Mxfp4Many<Int8Tile<Avx512>>::kKernel
                                          : float_kernel<Avx512>(activations);
}

}  // namespace gptoss

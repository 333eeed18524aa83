// MXFP4 times many tokens with AVX2 and FMA: in float32, and in bytes where activations have 8
// bits.
#include <immintrin.h>

#include "moe/mxfp4_many_float.h"
#include "moe/mxfp4_many_int8.h"

namespace gptoss {
namespace {

// Sixteen bytes of eight rows: lane r of register i has bytes 4i … 4i + 3 of row r.
struct Across {
  __m256i dwords[4];
};

struct Scales {
  const uint8_t* first;
  size_t stride;
};

struct Avx2 {
  using Vector = __m256;
  using Ints = __m256i;
  using Scales = gptoss::Scales;
  static constexpr size_t kLanes = 8;
  static constexpr size_t kFloatTokens = 6;  // 2 × 6 sums, 2 weights and a value in 16 registers
  static constexpr size_t kByteTokens = 4;   // 2 × 4 sums

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector broadcast(float x) { return _mm256_set1_ps(x); }
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
  static Vector sum(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector product(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm256_fmadd_ps(a, b, sum); }

  static Across across(const uint8_t* bytes, size_t stride) {
    const auto row = [&](size_t r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + r * stride));
    };
    const auto two = [&](size_t r) { return _mm256_set_m128i(row(r + 4), row(r)); };
    const __m256i a = two(0), b = two(1), c = two(2), d = two(3);
    const __m256i ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
    const __m256i cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
    return {{_mm256_unpacklo_epi64(ab_low, cd_low), _mm256_unpackhi_epi64(ab_low, cd_low),
             _mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high)}};
  }
  static Scales scales(const uint8_t* first, size_t stride, size_t) { return {first, stride}; }
  static Vector factors(const Scales& scales, size_t block) {
    alignas(32) float factors[kLanes];
    for (size_t r = 0; r < kLanes; ++r)
      factors[r] = scale_factor(scales.first[r * scales.stride + block]);
    return _mm256_load_ps(factors);
  }
  static Ints next_nibbles(Ints x) { return _mm256_srli_epi32(x, 4); }
  // Three bits of a nibble choose a magnitude, the fourth becomes the sign.
  static Vector levels(Ints nibbles) {
    const __m256 magnitude = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kLevels), nibbles);
    const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(nibbles, _mm256_set1_epi32(8)), 28);
    return _mm256_xor_ps(magnitude, _mm256_castsi256_ps(sign));
  }

  static Ints load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const Ints*>(p)); }
  static void store(uint8_t* p, Ints x) { _mm256_store_si256(reinterpret_cast<Ints*>(p), x); }
  static Ints broadcast(int32_t x) { return _mm256_set1_epi32(x); }
  static Ints offset_levels(Ints nibbles) {
    const Ints table = _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(kOffsetLevels.bytes)));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, _mm256_set1_epi8(15)));
  }
  static Ints add_pairs(Ints sum, Ints weights, Ints values) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, values));
  }
  static Vector total(Ints pairs) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

}  // namespace

const Mxfp4Kernel& mxfp4_many_avx2(Activations activations) {
  return activations == Activations::int8 ? Mxfp4Many<Int8Tile<Avx2>>::kKernel
                                          : float_kernel<Avx2>(activations);
}

}  // namespace gptoss

// LinearInt8 with AVX-512: a weight is the integer times its scale in float32, as the definition
// rounds it.
#include "linear/linear_avx512.h"

namespace gptoss {
namespace {

struct Float32 {
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
};

// 16 neighbours of a row, which share a scale.
struct Scaled {
  static constexpr size_t kLaneBytes = 1;
  static __m512 load(const LinearCall& call, size_t row, size_t k) {
    const auto* address = reinterpret_cast<const __m128i*>(call.weight + row * call.row_bytes + k);
    float scale;
    __builtin_memcpy(
        &scale, call.scales + (row * (call.depth / kScaleBlock) + k / kScaleBlock) * sizeof scale,
        sizeof scale);  // the address may be odd
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(address))),
                         _mm512_set1_ps(scale));
  }
  static __m512 load_rest(const LinearCall& call, size_t row, size_t k) {
    return load(call, row, k);
  }  // never fewer
};

}  // namespace

LinearKernels linear_int8_avx512() {
  return {matrix_vector<Float32, Scaled>,   TokenFormat::float32, kVectorTokens,
          blocked_product<Float32, Scaled>, TokenFormat::float32, kTileWidth};
}

}  // namespace gptoss

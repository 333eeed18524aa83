// LinearInt8 with AVX2 and FMA: a weight is the integer times its scale in float32, as the
// definition rounds it.
#include "linear/linear_avx2.h"

namespace gptoss {
namespace {

struct Scaled {
  static constexpr size_t kBytes = 1;
  static __m256 load(const LinearCall& call, size_t row, size_t k) {
    const auto* address = reinterpret_cast<const __m128i*>(call.weight + row * call.row_bytes + k);
    float scale;
    __builtin_memcpy(
        &scale, call.scales + (row * (call.depth / kScaleBlock) + k / kScaleBlock) * sizeof scale,
        sizeof scale);  // the address may be odd
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(address))),
                         _mm256_set1_ps(scale));
  }
  static __m256 load(const LinearCall& call, size_t row, size_t k, size_t) {
    return load(call, row, k);
  }  // never fewer
};

}  // namespace

LinearKernels linear_int8_avx2(Activations activations) {
  LinearKernels kernels = kKernels<Scaled>;
  if (activations == Activations::int8) use_int8_panels_maddubs(kernels);
  return kernels;
}

}  // namespace gptoss

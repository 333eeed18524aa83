// Linear with AVX2, FMA and F16C: float32 arithmetic on weights widened as they are read, which is
// exact.
#include "linear/linear_avx2.h"

namespace gptoss {
namespace {

// 8 weights as float32.
template <WeightType type>
__m256 widen(const unsigned char* address) {
  if constexpr (type == WeightType::float32) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(address));
  }
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(address));
  if constexpr (type == WeightType::float16) return _mm256_cvtph_ps(bits);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

template <WeightType type>
struct Widened {
  static constexpr size_t kBytes = bytes_of(type);
  static __m256 load(const LinearCall& call, size_t row, size_t k) {
    return widen<type>(address(call, row, k));
  }
  static __m256 load(const LinearCall& call, size_t row, size_t k, size_t count) {
    unsigned char bytes[kLanes * 4] = {};
    __builtin_memcpy(bytes, address(call, row, k), count * kBytes);
    return widen<type>(bytes);
  }

 private:
  static const unsigned char* address(const LinearCall& call, size_t row, size_t k) {
    return call.weight + row * call.row_bytes + k * kBytes;
  }
};

}  // namespace

LinearKernels linear_avx2(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return kKernels<Widened<WeightType::float32>>;
    case WeightType::float16:
      return kKernels<Widened<WeightType::float16>>;
    case WeightType::bfloat16:
      return kKernels<Widened<WeightType::bfloat16>>;
  }
  return {};
}

}  // namespace gptoss

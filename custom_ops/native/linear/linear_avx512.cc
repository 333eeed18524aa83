// Linear with AVX-512: float32 arithmetic on weights widened as they are read, which is exact.
#include "linear/linear_avx512.h"

namespace gptoss {
namespace {

struct Float32 {
  static constexpr size_t kLaneBytes = 4;
  static __m512 load(const unsigned char* address) { return _mm512_loadu_ps(address); }
  static __m512 load(const unsigned char* address, size_t bytes) {
    return _mm512_maskz_loadu_ps(first(bytes / kLaneBytes), address);
  }
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
};

// 16 bits that `Format` widens to float32.
template <class Format>
struct Widened {
  static constexpr size_t kLaneBytes = 2;
  static __m512 load(const unsigned char* address) {
    return Format::widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(address)));
  }
  static __m512 load(const unsigned char* address, size_t bytes) {
    return Format::widen(_mm256_maskz_loadu_epi16(first(bytes / kLaneBytes), address));
  }
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
};

struct Float16 {
  static __m512 widen(__m256i bits) { return _mm512_cvtph_ps(bits); }
};

struct BFloat16 {
  static __m512 widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
};

template <class Arithmetic>
constexpr LinearKernels kKernels{matrix_vector<Arithmetic>,   TokenFormat::float32, kVectorTokens,
                                 blocked_product<Arithmetic>, TokenFormat::float32, kTileWidth};

}  // namespace

LinearKernels linear_avx512(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return kKernels<Float32>;
    case WeightType::float16:
      return kKernels<Widened<Float16>>;
    case WeightType::bfloat16:
      return kKernels<Widened<BFloat16>>;
  }
  return {};
}

}  // namespace gptoss

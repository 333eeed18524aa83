// LinearPacked with AVX2 and FMA.
#include "linear/linear_packed_rows.h"
#include "machine/vectors_avx2.h"

namespace gptoss {
namespace {

struct Unpack256 {
  using Uppers = __m256i;
  static constexpr size_t kGroup = 32;

  // Half q of `first` holds weights 16 q to 16 q + 7, of `second` 16 q + 8 to 16 q + 15.
  struct Weights {
    __m256i first, second;
  };

  // The upper byte of each code: the sign, and the base + c where c is not 0.
  static __m256i upper_bytes(unsigned char base) {
    const __m256i codes = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -128, -127, -126, -125, -124, -123, -122, -121));
    const __m256i not_zero = _mm256_set1_epi64x(static_cast<long long>(0xffffffffffffff00));
    const __m256i bases = _mm256_set1_epi8(static_cast<char>(base));
    return _mm256_add_epi8(codes, _mm256_and_si256(not_zero, bases));
  }

  static Weights unpack(const unsigned char* low, const unsigned char* high, size_t group,
                        __m256i uppers) {
    const __m256i lower = load(low + kGroup * group), both = load(high);
    const __m256i codes =
        _mm256_and_si256(group == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
    const __m256i upper = _mm256_shuffle_epi8(uppers, codes);
    return {_mm256_unpacklo_epi8(lower, upper), _mm256_unpackhi_epi8(lower, upper)};
  }

  static void store(const Weights& weights, uint16_t* out) {
    auto* place = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(place, _mm256_permute2x128_si256(weights.first, weights.second, 0x20));
    _mm256_storeu_si256(place + 1, _mm256_permute2x128_si256(weights.first, weights.second, 0x31));
  }

  static __m256 even(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
  static __m256 odd(__m256i pairs) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, upper));
  }

 private:
  static __m256i load(const unsigned char* address) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(address));
  }
};

}  // namespace

PackedKernels linear_packed_avx2(bool rounded) {
  return packed_float_kernels<Floats8, Unpack256>(packed_floats_8(rounded));
}

}  // namespace gptoss

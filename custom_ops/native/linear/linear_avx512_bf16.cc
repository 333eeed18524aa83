// Linear on tokens rounded to bfloat16, with the dot products of AVX-512 BF16: two products to a
// lane, sums in float32.
#include "linear/linear_avx512.h"

namespace gptoss {
namespace {

struct Pairs {
  static constexpr size_t kLaneBytes = 4;
  static __m512 load(const unsigned char* address) { return _mm512_loadu_ps(address); }
  static __m512 load(const unsigned char* address, size_t bytes) {
    const size_t values = bytes / 2;  // the last pair may be a half one
    const __mmask32 mask = values >= 2 * kLanes ? ~__mmask32{0} : (__mmask32{1} << values) - 1;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, address));
  }
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) {
    return _mm512_dpbf16_ps(sum, pairs(a), pairs(b));
  }

 private:
  static __m512bh pairs(__m512 lanes) {
    __m512bh result;
    __builtin_memcpy(&result, &lanes, sizeof result);  // compilers differ on how to cast
    return result;
  }
};

}  // namespace

LinearKernels linear_avx512_bf16() {
  return {matrix_vector<Pairs>,   TokenFormat::pairs, kVectorTokens,
          blocked_product<Pairs>, TokenFormat::pairs, kTileWidth};
}

}  // namespace gptoss

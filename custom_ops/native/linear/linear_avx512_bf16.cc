// Linear on tokens rounded to bfloat16, with the dot products of AVX-512 BF16: two products to a
// lane, sums in float32.
#include "linear/linear_blocks.h"
#include "machine/vectors_avx512.h"

namespace gptoss {
namespace {

struct StoredPairs {
  static constexpr size_t kLaneBytes = 4;

  static __m512 load(const LinearCall& call, size_t row, size_t lane) {
    return _mm512_loadu_ps(call.weight + row * call.row_bytes + lane * kLaneBytes);
  }
  static __m512 load_rest(const LinearCall& call, size_t row, size_t lane) {
    const size_t offset = lane * kLaneBytes;
    const size_t values = (call.row_bytes - offset) / 2;  // the last pair may be a half one
    const __mmask32 mask = values >= 32 ? ~__mmask32{0} : (__mmask32{1} << values) - 1;
    return _mm512_castsi512_ps(
        _mm512_maskz_loadu_epi16(mask, call.weight + row * call.row_bytes + offset));
  }
};

struct PairProducts {
  static __m512 multiply_add(__m512 weights, __m512 tokens, __m512 sum) {
    return _mm512_dpbf16_ps(sum, pairs(weights), pairs(tokens));
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
  return kernels_of<Floats16, PairProducts, StoredPairs>(TokenFormat::pairs);
}

}  // namespace gptoss

// LinearPacked on tokens rounded to bfloat16, with the dot products of AVX-512 BF16.
#include "linear/linear_packed_avx512.h"

namespace gptoss {
namespace {

struct Pairs {
  static constexpr size_t kLanes = 32;

  static __m512 multiply_add(const Unpack512::Weights& weights, const float* token, __m512 sum) {
    sum = _mm512_dpbf16_ps(sum, pairs(weights.first), pairs(_mm512_loadu_si512(token)));
    return _mm512_dpbf16_ps(sum, pairs(weights.second), pairs(_mm512_loadu_si512(token + 16)));
  }

 private:
  static __m512bh pairs(__m512i bits) {
    __m512bh result;
    __builtin_memcpy(&result, &bits, sizeof result);  // compilers differ on how to cast
    return result;
  }
};

}  // namespace

PackedKernels linear_packed_avx512_bf16() {
  return {packed_vectors<Floats16, Unpack512, Pairs>, TokenFormat::packed, packed_pairs_16(),
          unpack_row<Unpack512>};
}

}  // namespace gptoss

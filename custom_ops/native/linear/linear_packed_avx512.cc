// LinearPacked with AVX-512: float32 arithmetic on weights widened as they are read, which is
// exact.
#include "linear/linear_packed_avx512.h"

namespace gptoss {
namespace {

struct Float32 {
  static constexpr size_t kLanes = 64;

  static __m512 multiply_add(const Unpacked& weights, const float* token, __m512 sum) {
    sum = _mm512_fmadd_ps(even(weights.first), _mm512_loadu_ps(token), sum);
    sum = _mm512_fmadd_ps(odd(weights.first), _mm512_loadu_ps(token + 16), sum);
    sum = _mm512_fmadd_ps(even(weights.second), _mm512_loadu_ps(token + 32), sum);
    return _mm512_fmadd_ps(odd(weights.second), _mm512_loadu_ps(token + 48), sum);
  }

 private:
  static __m512 even(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
  static __m512 odd(__m512i pairs) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
  }
};

}  // namespace

PackedKernels linear_packed_avx512(bool rounded) {
  return {matrix_vector<Float32>, TokenFormat::packed, packed_floats_16(rounded), unpack_row};
}

}  // namespace gptoss

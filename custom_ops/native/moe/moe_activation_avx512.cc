// The activations with AVX-512.
#include "machine/vectors_avx512.h"
#include "moe/moe_activation_vectors.h"

namespace gptoss {
namespace {

struct Avx512 : Floats16 {
  static Vector least(Vector a, Vector b) { return _mm512_min_ps(a, b); }
  static Vector greatest(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector quotient(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector difference(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector nearest(Vector x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static Vector times_power_of_two(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
  static void pairs(Vector a, Vector b, Vector& even, Vector& odd) {
    const __m512i evens =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
    even = _mm512_permutex2var_ps(a, evens, b);
    odd = _mm512_permutex2var_ps(a, odds, b);
  }
  static Vector beyond(Vector x, Vector limit, Vector y, Vector z) {
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), z);
  }
};

}  // namespace

Activate activation_avx512(const ExpertActivation& activation) {
  return VectorActivation<Avx512>::kernel(activation);
}

}  // namespace gptoss

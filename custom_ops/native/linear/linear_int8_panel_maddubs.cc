// LinearInt8 times several tokens with AVX2, in mode int8 alone: products of bytes are added in
// pairs to 16 bits and those to 32, four instructions for what float32 takes four for; a second
// digit would make it the slower.
#include "linear/linear_int8_panel_avx2.h"

namespace gptoss {
namespace {

struct Maddubs : Avx2 {
  static constexpr int kOffset = 0;
  static constexpr size_t kTileWidth = 3;  // more would not fit the registers

  static Integers offset(Floats bytes) { return _mm256_castps_si256(bytes); }
  // The signs go to the tokens, -127 to 127: two products are at most 2 * 128 * 127, which fits.
  static Integers dot(Integers sum, Integers weights, Integers tokens) {
    const Integers pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(tokens, weights));
    return add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

}  // namespace

void use_int8_panels_maddubs(LinearKernels& kernels) {
  use_panels_of<Maddubs, 1>(kernels);
  kernels.vector_tokens = 3;
}

}  // namespace gptoss

// LinearInt8 times several tokens with AVX2, in modes bf16 and int8: in words, since VPMADDWD does
// more than a float32 FMA. Products of bytes (VPMADDUBSW) would have to be widened one by one, for
// two of them fill 16 bits. Mode int8 keeps the 15 bits of mode bf16, which cost nothing.
#include "linear/linear_int8_panel_avx2.h"

namespace gptoss {
namespace {

struct Words : Avx2 {
  static constexpr bool kWords = true;
  static constexpr int kOffset = 0;        // both sides are signed
  static constexpr size_t kTileWidth = 3;  // 3 x 2 dots and as many sums, 2 weights and a token

  static Integers even_words(Floats bytes) {
    return _mm256_srai_epi16(_mm256_slli_epi16(_mm256_castps_si256(bytes), 8), 8);
  }
  static Integers odd_words(Floats bytes) {
    return _mm256_srai_epi16(_mm256_castps_si256(bytes), 8);
  }
  static Integers dot(Integers sum, Integers weights, Integers tokens) {
    sum = add(sum, _mm256_madd_epi16(weights, tokens));
    asm("" : "+x"(sum));  // else the compiler adds in another order, with too many registers
    return sum;
  }
};

}  // namespace

void use_int8_panels_words(LinearKernels& kernels) {
  use_panels_of<Words, 2>(kernels);
  kernels.vector_tokens = 4;
}

}  // namespace gptoss

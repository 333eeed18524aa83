// MXFP4 times many tokens with AVX-512 VNNI.
#include "moe/mxfp4_many_vnni.h"

namespace gptoss {
namespace {

struct Shuffle {
  static __m512i low(__m512i bytes) {
    return _mm512_shuffle_epi8(level_table(), _mm512_and_si512(bytes, _mm512_set1_epi8(15)));
  }
  static __m512i high(__m512i bytes) { return low(_mm512_srli_epi16(bytes, 4)); }
};

}  // namespace

const Mxfp4Kernel& mxfp4_many_vnni(Activations activations) {
  switch (activations) {
    case Activations::bf16:
      return Mxfp4Many<VnniTile<Shuffle, 2>>::kKernel;
    case Activations::int8:
      return Mxfp4Many<VnniTile<Shuffle, 1>>::kKernel;
    default:
      return Mxfp4Many<VnniTile<Shuffle, 3>>::kKernel;
  }
}

}  // namespace gptoss

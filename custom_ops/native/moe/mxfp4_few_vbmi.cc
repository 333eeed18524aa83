// MXFP4 times a few tokens with AVX-512 VNNI and VBMI: nibbles become levels by a permutation of 64
// bytes, which looks at six bits of an index. A table of four copies makes the upper two of no
// account, so that no nibble needs a mask.
#include "moe/mxfp4_few_vnni.h"

namespace gptoss {
namespace {

struct PermuteNibbles {
  static __m512i low(__m512i bytes) { return _mm512_permutexvar_epi8(bytes, level_table()); }
  static __m512i high(__m512i bytes) { return low(_mm512_srli_epi16(bytes, 4)); }
};

}  // namespace

const Mxfp4Kernel& mxfp4_few_vbmi(Activations activations) {
  return few_kernel<FewAvx512<PermuteNibbles, ByteDots>>(activations);
}

}  // namespace gptoss

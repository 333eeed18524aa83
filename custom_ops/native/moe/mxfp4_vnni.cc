// MXFP4 with AVX-512 VNNI: nibbles become levels by a shuffle within 16 bytes.
#include "moe/mxfp4_vnni.h"

namespace gptoss {
namespace {

struct Shuffle {
  static __m512i low(__m512i bytes) {
    return _mm512_shuffle_epi8(level_table(), _mm512_and_si512(bytes, _mm512_set1_epi8(15)));
  }
  static __m512i high(__m512i bytes) { return low(_mm512_srli_epi16(bytes, 4)); }
};

}  // namespace

const Mxfp4Kernel& mxfp4_vnni(Activations activations) { return kernel<Shuffle>(activations); }

}  // namespace gptoss

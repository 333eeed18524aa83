// MXFP4 times many tokens with AVX-512 VNNI.
#include "moe/mxfp4_many_vnni.h"

namespace gptoss {
const Mxfp4Kernel& mxfp4_many_vnni(Activations activations) {
  switch (activations) {
    case Activations::bf16:
      return Mxfp4Many<VnniTile<WordDots>>::kKernel;
    case Activations::int8:
      return Mxfp4Many<VnniTile<ByteDots>>::kKernel;
    default:
      return Mxfp4Many<VnniTile<WordAndByteDots>>::kKernel;
  }
}

}  // namespace gptoss

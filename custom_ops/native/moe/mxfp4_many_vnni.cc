// MXFP4 times many tokens with AVX-512 VNNI.
#include "moe/mxfp4_many_vnni.h"
#include "moe/mxfp4_nibbles.h"

namespace gptoss {
const Mxfp4Kernel& mxfp4_many_vnni(Activations activations) {
  switch (activations) {
    case Activations::bf16:
      return Mxfp4Many<VnniTile<ShuffleNibbles, 2>>::kKernel;
    case Activations::int8:
      return Mxfp4Many<VnniTile<ShuffleNibbles, 1>>::kKernel;
    default:
      return Mxfp4Many<VnniTile<ShuffleNibbles, 3>>::kKernel;
  }
}

}  // namespace gptoss

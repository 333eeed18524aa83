// MXFP4 times a few tokens with AVX-512 VNNI.
#include "moe/mxfp4_few_vnni.h"

namespace gptoss {

const Mxfp4Kernel& mxfp4_few_vnni(Activations activations) {
  return few_kernel<FewAvx512<ShuffleNibbles, ByteDots>>(activations);
}

}  // namespace gptoss

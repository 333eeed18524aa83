// MXFP4 times a few tokens with AVX-512 that lacks VNNI.
#include "moe/mxfp4_few_avx512.h"

namespace gptoss {

const Mxfp4Kernel& mxfp4_few_avx512(Activations activations) {
  return few_kernel<FewAvx512<ShuffleNibbles, PairDots>>(activations);
}

}  // namespace gptoss

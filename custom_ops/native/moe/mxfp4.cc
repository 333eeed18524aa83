#include "moe/mxfp4.h"

namespace gptoss {

Mxfp4Kernels mxfp4_kernels(Activations activations, CpuLevel level) {
  const auto both = [](const Mxfp4Kernel& kernel) { return Mxfp4Kernels{&kernel, &kernel}; };
#if defined(__x86_64__)
  if (level >= CpuLevel::amx) return {&mxfp4_vbmi(activations), &mxfp4_amx(activations)};
  if (level >= CpuLevel::avx512_vbmi)
    return {&mxfp4_vbmi(activations), &mxfp4_many_vnni(activations)};
  if (level >= CpuLevel::avx512_vnni)
    return {&mxfp4_vnni(activations), &mxfp4_many_vnni(activations)};
  if (level >= CpuLevel::avx512)
    return {&mxfp4_avx512(activations), &mxfp4_many_avx512(activations)};
  if (level >= CpuLevel::avx2) return {&mxfp4_avx2(activations), &mxfp4_many_avx2(activations)};
#endif
  (void)level;
  return both(mxfp4_scalar(activations));
}

}  // namespace gptoss

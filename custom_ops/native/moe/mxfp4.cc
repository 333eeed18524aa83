#include "moe/mxfp4.h"

#include <cstdlib>

namespace gptoss {

Mxfp4Kernels mxfp4_kernels(Activations activations, CpuLevel level) {
  const auto env = [](size_t d) { const char* s = getenv("FEW"); return s ? size_t(atoi(s)) : d; };
#if defined(__x86_64__)
  if (level >= CpuLevel::amx)
    return {&mxfp4_few_vbmi(activations), &mxfp4_amx(activations), env(8)};
  if (level >= CpuLevel::avx512_vbmi)
    return {&mxfp4_few_vbmi(activations), &mxfp4_vbmi(activations), env(31)};
  if (level >= CpuLevel::avx512_vnni)
    return {&mxfp4_few_vnni(activations), &mxfp4_vnni(activations), env(31)};
  if (level >= CpuLevel::avx512)
    return {&mxfp4_few_avx512(activations), &mxfp4_avx512(activations), env(4)};
  if (level >= CpuLevel::avx2)
    return {&mxfp4_few_avx2(activations), &mxfp4_avx2(activations), env(4)};
#endif
  (void)level;
  return {&mxfp4_scalar(activations), &mxfp4_scalar(activations), 0};
}

}  // namespace gptoss

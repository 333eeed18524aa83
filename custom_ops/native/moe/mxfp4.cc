#include "moe/mxfp4.h"

namespace gptoss {
namespace {

// Up to how many tokens an expert the first kernel of a level is the faster one, by mode: where the
// times of the two met on rows of gpt-oss-20b that came from memory.
size_t few_tokens(Activations activations, size_t exact, size_t bf16, size_t int8) {
  switch (activations) {
    case Activations::bf16:
      return bf16;
    case Activations::int8:
      return int8;
    default:
      return exact;
  }
}

}  // namespace

Mxfp4Kernels mxfp4_kernels(Activations activations, CpuLevel level) {
  const auto up_to = [&](size_t exact, size_t bf16, size_t int8) {
    return few_tokens(activations, exact, bf16, int8);
  };
#if defined(__x86_64__)
  if (level >= CpuLevel::amx)
    return {&mxfp4_few_vbmi(activations), &mxfp4_amx(activations), up_to(8, 9, 15)};
  if (level >= CpuLevel::avx512_bf16 && activations == Activations::bf16 && bf16_dots_are_fast())
    return {&mxfp4_few_vbmi(activations), &mxfp4_many_bf16(), up_to(10, 8, 8)};
  if (level >= CpuLevel::avx512_vbmi)
    return {&mxfp4_few_vbmi(activations), &mxfp4_many_vnni(activations), up_to(10, 8, 8)};
  if (level >= CpuLevel::avx512_vnni)
    return {&mxfp4_few_vnni(activations), &mxfp4_many_vnni(activations), up_to(10, 8, 8)};
  if (level >= CpuLevel::avx512)
    return {&mxfp4_few_avx512(activations), &mxfp4_many_avx512(activations), up_to(4, 7, 12)};
  if (level >= CpuLevel::avx2)
    return {&mxfp4_few_avx2(activations), &mxfp4_many_avx2(activations), up_to(6, 5, 7)};
#endif
  (void)level;
  (void)up_to;
  return {&mxfp4_scalar(activations), &mxfp4_scalar(activations), 0};
}

}  // namespace gptoss

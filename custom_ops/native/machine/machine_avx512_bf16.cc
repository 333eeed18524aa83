// The measuring loop with AVX-512 dot products of bfloat16.
#include <immintrin.h>

#include "machine/machine_loops.h"

namespace gptoss {
namespace {

uint64_t run_bf16(uint64_t steps) noexcept {
  const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
  return chains(_mm512_setzero_ps(), steps,
                [=](__m512 sum) { return _mm512_dpbf16_ps(sum, x, x); });
}

}  // namespace

ComputeLoop compute_bf16_avx512() { return {run_bf16, 2 * 32 * kChains, kChainSteps}; }

}  // namespace gptoss

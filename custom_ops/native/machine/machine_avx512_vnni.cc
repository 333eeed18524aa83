// The measuring loops with AVX-512 dot products of bytes and of words.
#include <immintrin.h>

#include "machine/machine_loops.h"

namespace gptoss {
namespace {

uint64_t run_int8(uint64_t steps) noexcept {
  const __m512i x = _mm512_set1_epi8(3);
  return chains(_mm512_setzero_si512(), steps,
                [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, x, x); });
}

uint64_t run_int16(uint64_t steps) noexcept {
  const __m512i x = _mm512_set1_epi16(3);
  return chains(_mm512_setzero_si512(), steps,
                [=](__m512i sum) { return _mm512_dpwssd_epi32(sum, x, x); });
}

}  // namespace

ComputeLoop compute_int8_avx512_vnni() { return {run_int8, 2 * 64 * kChains, kChainSteps}; }
ComputeLoop compute_int16_avx512_vnni() { return {run_int16, 2 * 32 * kChains, kChainSteps}; }

}  // namespace gptoss

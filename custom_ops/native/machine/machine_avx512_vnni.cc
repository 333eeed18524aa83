// The measuring loop with AVX-512 dot products of bytes.
#include <immintrin.h>

#include "machine/machine_loops.h"

namespace gptoss {
namespace {

uint64_t run_int8(uint64_t steps) noexcept {
  const __m512i x = _mm512_set1_epi8(3);
  return chains(_mm512_setzero_si512(), steps,
                [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, x, x); });
}

}  // namespace

ComputeLoop compute_int8_avx512_vnni() { return {run_int8, 2 * 64 * kChains, kChainSteps}; }

}  // namespace gptoss

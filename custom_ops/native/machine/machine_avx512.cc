// The measuring loops with AVX-512.
#include <immintrin.h>

#include "machine/machine_loops.h"

namespace gptoss {
namespace {

using Word = uint64_t __attribute__((vector_size(64), aligned(1), may_alias));

uint64_t run_fma(uint64_t steps) noexcept {
  const __m512 x = _mm512_set1_ps(0.5f);
  return chains(_mm512_setzero_ps(), steps, [=](__m512 sum) { return _mm512_fmadd_ps(sum, x, x); });
}

}  // namespace

uint64_t read_avx512(const unsigned char* bytes, size_t count) noexcept {
  return read_streams<Word>(bytes, count);
}

ComputeLoop compute_fma_avx512() { return {run_fma, 2 * 16 * kChains, kChainSteps}; }

}  // namespace gptoss

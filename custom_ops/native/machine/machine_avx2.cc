// The measuring loops with AVX2 and FMA.
#include <immintrin.h>

#include "machine/machine_loops.h"

namespace gptoss {
namespace {

using Word = uint64_t __attribute__((vector_size(32), aligned(1), may_alias));

uint64_t run_fma(uint64_t steps) noexcept {
  const __m256 x = _mm256_set1_ps(0.5f);
  return chains(_mm256_setzero_ps(), steps, [=](__m256 sum) { return _mm256_fmadd_ps(sum, x, x); });
}

}  // namespace

uint64_t read_avx2(const unsigned char* bytes, size_t count) noexcept {
  return read_streams<Word>(bytes, count);
}

ComputeLoop compute_fma_avx2() { return {run_fma, 2 * 8 * kChains, kChainSteps}; }

}  // namespace gptoss

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

// What stands in for a dot product of bytes: pairs, added in 16 bits. The empty assembly keeps the
// product in the loop, for it has the same operands each time.
uint64_t run_int8(uint64_t steps) noexcept {
  const __m256i x = _mm256_set1_epi8(3);
  return chains(_mm256_setzero_si256(), steps, [=](__m256i sum) {
    __m256i again = x;
    __asm__ volatile("" : "+x"(again));
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(again, x));
  });
}

// And of words: pairs, added in 32 bits.
uint64_t run_int16(uint64_t steps) noexcept {
  const __m256i x = _mm256_set1_epi16(3);
  return chains(_mm256_setzero_si256(), steps, [=](__m256i sum) {
    __m256i again = x;
    __asm__ volatile("" : "+x"(again));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(again, x));
  });
}

}  // namespace

uint64_t read_avx2(const unsigned char* bytes, size_t count) noexcept {
  return read_streams<Word>(bytes, count);
}

ComputeLoop compute_fma_avx2() { return {run_fma, 2 * 8 * kChains, kChainSteps}; }
ComputeLoop compute_int8_avx2() { return {run_int8, 2 * 32 * kChains, kChainSteps}; }
ComputeLoop compute_int16_avx2() { return {run_int16, 2 * 16 * kChains, kChainSteps}; }

}  // namespace gptoss

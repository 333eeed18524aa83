// LinearInt8 with AVX-512: float32 arithmetic on weights widened as they are read, which is exact.
//
// A few tokens are multiplied with the integers, and each block's sums once with its scale; in the panels of many
// tokens a weight is the integer times its scale, rounded to float32 as the definition rounds it.
#include "linear_avx512.h"

namespace gptoss {
namespace {

struct Float32 {
  static constexpr size_t kLaneBytes = 4;
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
};

__m512 widen(const unsigned char* address) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(address))));
}

// The scale of row `row` at column k, in every lane.
__m512 scale_of(const LinearCall& call, size_t row, size_t k) {
  float scale;
  __builtin_memcpy(&scale, call.scales + (row * (call.depth / kScaleBlock) + k / kScaleBlock) * sizeof scale,
                   sizeof scale);  // the address may be odd
  return _mm512_set1_ps(scale);
}

struct Scaled {
  static constexpr size_t kLaneBytes = 1;
  static __m512 load(const LinearCall& call, size_t row, size_t k) {
    return _mm512_mul_ps(widen(call.weight + row * call.row_bytes + k), scale_of(call, row, k));
  }
};

// kRows weight rows from m on times kTokens tokens from `first_token` on. Meanwhile the next rows are fetched: the
// processor's own prefetcher stops at every page and at the end of every row.
template <size_t kTokens, size_t kRows>
void int8_rows_times_tokens(const LinearCall& call, size_t m, size_t first_token) {
  const float* x = call.x + first_token * call.lanes;
  float* y = call.y + first_token * call.rows;
  __m512 sums[kRows][kTokens];
#pragma GCC unroll 4  // these loops are unrolled to keep the sums in registers
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t n = 0; n < kTokens; ++n) sums[r][n] = _mm512_setzero_ps();
  }
  for (size_t k = 0; k < call.depth; k += kScaleBlock) {
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const unsigned char* weights = call.weight + (m + r) * call.row_bytes + k;
      if (k % kCacheLine == 0) _mm_prefetch(weights + kRows * call.row_bytes, _MM_HINT_T0);
      const __m512 low = widen(weights), high = widen(weights + kLanes), scale = scale_of(call, m + r, k);
#pragma GCC unroll 4
      for (size_t n = 0; n < kTokens; ++n) {
        const __m512 part = _mm512_mul_ps(low, _mm512_loadu_ps(x + n * call.lanes + k));
        const __m512 both = _mm512_fmadd_ps(high, _mm512_loadu_ps(x + n * call.lanes + k + kLanes), part);
        sums[r][n] = _mm512_fmadd_ps(both, scale, sums[r][n]);
      }
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    const float bias = call.bias == nullptr ? 0.0f : call.bias[m + r];
#pragma GCC unroll 4
    for (size_t n = 0; n < kTokens; ++n) y[n * call.rows + m + r] = _mm512_reduce_add_ps(sums[r][n]) + bias;
  }
}

// Four tokens at a time; for the later ones the rows are still in the cache.
template <size_t kRows>
void int8_rows_times_all_tokens(const LinearCall& call, size_t m) {
  size_t n = 0;
  for (; n + 4 <= call.tokens; n += 4) int8_rows_times_tokens<4, kRows>(call, m, n);
  switch (call.tokens - n) {
    case 3: return int8_rows_times_tokens<3, kRows>(call, m, n);
    case 2: return int8_rows_times_tokens<2, kRows>(call, m, n);
    case 1: return int8_rows_times_tokens<1, kRows>(call, m, n);
  }
}

void int8_matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  size_t m = begin;
  for (; m + kVectorRows <= end; m += kVectorRows) int8_rows_times_all_tokens<kVectorRows>(call, m);
  for (; m < end; ++m) int8_rows_times_all_tokens<1>(call, m);
}

}  // namespace

LinearKernels linear_int8_avx512() {
  return {int8_matrix_vector,               TokenFormat::float32, kVectorTokens,
          blocked_product<Float32, Scaled>, TokenFormat::float32, kTileWidth};
}

}  // namespace gptoss

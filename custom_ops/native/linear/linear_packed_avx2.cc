// LinearPacked with AVX2 and FMA: float32 arithmetic on weights widened as they are read, which is
// exact.
#include <immintrin.h>

#include "linear/linear_packed_kernels.h"

namespace gptoss {
namespace {

constexpr size_t kStreams = 4;  // rows side by side: as many as there are registers for
constexpr size_t kAhead = 768;  // bytes of each row to prefetch
constexpr size_t kGroup = 32;   // weights that are unpacked together

// 32 weights as bfloat16. Half q of `first` holds weights 16 q to 16 q + 7, of `second` 16 q + 8 to
// 16 q + 15.
struct Unpacked {
  __m256i first, second;
};

// The upper byte of each code: the sign, and the base + c where c is not 0.
__m256i upper_bytes(unsigned char base) {
  const __m256i codes = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -128, -127, -126, -125, -124, -123, -122, -121));
  const __m256i not_zero = _mm256_set1_epi64x(static_cast<long long>(0xffffffffffffff00));
  return _mm256_add_epi8(codes,
                         _mm256_and_si256(not_zero, _mm256_set1_epi8(static_cast<char>(base))));
}

Unpacked unpack(const unsigned char* low, __m256i codes, __m256i uppers) {
  const __m256i lower = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low));
  const __m256i upper = _mm256_shuffle_epi8(uppers, _mm256_and_si256(codes, _mm256_set1_epi8(15)));
  return {_mm256_unpacklo_epi8(lower, upper), _mm256_unpackhi_epi8(lower, upper)};
}

__m256i load_codes(const unsigned char* high) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high));
}

__m256 even(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }

__m256 odd(__m256i pairs) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

float sum_of(__m256 lanes) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// kRows rows, from m on and `step` rows apart, times kTokens tokens from `first_token` on.
template <size_t kTokens, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t step, size_t first_token) {
  const PackedWeight& packed = *call.packed;
  const size_t half = call.depth / 2;
  const float* x = call.x + first_token * call.lanes;
  const unsigned char* low = call.weight + m * call.depth;
  const unsigned char* high = packed.high + m * half;
  __m256i uppers[kRows];
  __m256 sums[kRows][kTokens];
#pragma GCC unroll 4  // these loops are unrolled to keep the sums in registers
  for (size_t r = 0; r < kRows; ++r) {
    uppers[r] = upper_bytes(packed.bases[m + r * step]);
#pragma GCC unroll 4
    for (size_t n = 0; n < kTokens; ++n) sums[r][n] = _mm256_setzero_ps();
  }
  for (size_t k = 0; k < call.depth; k += kPackedBlock) {
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const unsigned char* row = low + r * step * call.depth + k;
      const unsigned char* code_row = high + r * step * half + k / 2;
      _mm_prefetch(row + kAhead, _MM_HINT_T0);
      if (k % (2 * kPackedBlock) == 0) _mm_prefetch(code_row + kAhead / 2, _MM_HINT_T0);
      const __m256i codes = load_codes(code_row);
#pragma GCC unroll 2
      for (size_t group = 0; group < 2; ++group) {
        const Unpacked weights = unpack(
            row + kGroup * group, group == 0 ? codes : _mm256_srli_epi16(codes, 4), uppers[r]);
#pragma GCC unroll 4
        for (size_t n = 0; n < kTokens; ++n) {
          const float* token = x + n * call.lanes + k + kGroup * group;
          __m256 sum = sums[r][n];
          sum = _mm256_fmadd_ps(even(weights.first), _mm256_loadu_ps(token), sum);
          sum = _mm256_fmadd_ps(odd(weights.first), _mm256_loadu_ps(token + 8), sum);
          sum = _mm256_fmadd_ps(even(weights.second), _mm256_loadu_ps(token + 16), sum);
          sums[r][n] = _mm256_fmadd_ps(odd(weights.second), _mm256_loadu_ps(token + 24), sum);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    const size_t row = m + r * step;
    const float bias = call.bias == nullptr ? 0.0f : call.bias[row];
#pragma GCC unroll 4
    for (size_t n = 0; n < kTokens; ++n)
      call.y[(first_token + n) * call.rows + row] = sum_of(sums[r][n]) + bias;
  }
}

// Two tokens at a time; for the later ones the rows are still in the cache.
template <size_t kRows>
void rows_times_all_tokens(const LinearCall& call, size_t m, size_t step) {
  size_t n = 0;
  for (; n + 2 <= call.tokens; n += 2) rows_times_tokens<2, kRows>(call, m, step, n);
  if (n < call.tokens) rows_times_tokens<1, kRows>(call, m, step, n);
}

void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  const size_t step = (end - begin) / kStreams;
  for (size_t m = begin; m < begin + step; ++m) rows_times_all_tokens<kStreams>(call, m, step);
  for (size_t m = begin + kStreams * step; m < end; ++m) rows_times_all_tokens<1>(call, m, 1);
}

void unpack_row(const unsigned char* low, const unsigned char* high, unsigned char base,
                size_t depth, uint16_t* out) noexcept {
  const __m256i uppers = upper_bytes(base);
  for (size_t k = 0; k < depth; k += kPackedBlock) {
    const __m256i codes = load_codes(high + k / 2);
    for (size_t group = 0; group < 2; ++group) {
      const Unpacked weights = unpack(low + k + kGroup * group,
                                      group == 0 ? codes : _mm256_srli_epi16(codes, 4), uppers);
      auto* place = reinterpret_cast<__m256i*>(out + k + kGroup * group);
      _mm256_storeu_si256(place, _mm256_permute2x128_si256(weights.first, weights.second, 0x20));
      _mm256_storeu_si256(place + 1,
                          _mm256_permute2x128_si256(weights.first, weights.second, 0x31));
    }
  }
}

}  // namespace

PackedKernels linear_packed_avx2(bool rounded) {
  return {matrix_vector, TokenFormat::packed, packed_floats_8(rounded), unpack_row};
}

}  // namespace gptoss

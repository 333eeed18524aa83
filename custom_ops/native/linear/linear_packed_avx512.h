// LinearPacked with AVX-512, for any Arithmetic, which multiplies 64 unpacked weights:
//
//   static constexpr size_t kLanes;  lanes of 64 values of a token
//   static __m512 multiply_add(const Unpacked& weights, const float* token, __m512 sum);
//
// A byte permutation turns 4 bits into the upper byte of a bfloat16, and unpacking puts it beside
// the lower one.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include "linear/linear_packed_kernels.h"

namespace gptoss {
namespace {

constexpr size_t kAhead = 384;  // bytes of each row's lower plane to prefetch: 16 streams share
                                // the first-level cache with the tokens

// 64 weights as bfloat16. Quarter q of `first` holds weights 16 q to 16 q + 7, of `second` 16 q + 8
// to 16 q + 15.
struct Unpacked {
  __m512i first, second;
};

// The upper byte of each code: the sign, and the base + c where c is not 0.
__m512i upper_bytes(unsigned char base) {
  const __m512i codes = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -128, -127, -126, -125, -124, -123, -122, -121));
  return _mm512_mask_add_epi8(codes, 0xfefefefefefefefe, codes,
                              _mm512_set1_epi8(static_cast<char>(base)));
}

Unpacked unpack(const unsigned char* low, const unsigned char* high, __m512i uppers) {
  const __m512i lower = _mm512_loadu_si512(low);
  const __m512i twice =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
  const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_setzero_si256(), 0);
  const __m512i codes = _mm512_and_si512(_mm512_srlv_epi16(twice, shift), _mm512_set1_epi8(15));
  const __m512i upper = _mm512_shuffle_epi8(uppers, codes);
  return {_mm512_unpacklo_epi8(lower, upper), _mm512_unpackhi_epi8(lower, upper)};
}

// kRows rows, from m on and `step` rows apart, times kTokens tokens from `first_token` on. Rows are
// streams of their own, as those of Linear (linear_avx512.h).
template <class Arithmetic, size_t kTokens, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t step, size_t first_token) {
  const PackedWeight& packed = *call.packed;
  const size_t half = call.depth / 2;
  const float* x = call.x + first_token * call.lanes;
  const unsigned char* low = call.weight + m * call.depth;
  const unsigned char* high = packed.high + m * half;
  __m512i uppers[kRows];
  __m512 sums[kRows][kTokens];
#pragma GCC unroll 8  // these loops are unrolled to keep the sums in registers
  for (size_t r = 0; r < kRows; ++r) {
    uppers[r] = upper_bytes(packed.bases[m + r * step]);
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n) sums[r][n] = _mm512_setzero_ps();
  }
  for (size_t k = 0; k < call.depth; k += kPackedBlock, x += Arithmetic::kLanes) {
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) {
      _mm_prefetch(low + r * step * call.depth + k + kAhead, _MM_HINT_T0);
      if (k % (2 * kPackedBlock) == 0)
        _mm_prefetch(high + r * step * half + (k + kAhead) / 2, _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) {
      const Unpacked weights =
          unpack(low + r * step * call.depth + k, high + r * step * half + k / 2, uppers[r]);
#pragma GCC unroll 8
      for (size_t n = 0; n < kTokens; ++n)
        sums[r][n] = Arithmetic::multiply_add(weights, x + n * call.lanes, sums[r][n]);
    }
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
    const size_t row = m + r * step;
    const float bias = call.bias == nullptr ? 0.0f : call.bias[row];
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n) {
      call.y[(first_token + n) * call.rows + row] = _mm512_reduce_add_ps(sums[r][n]) + bias;
    }
  }
}

// The same rows times tokens [n, n + tokens), at most four.
template <class Arithmetic, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t step, size_t n, size_t tokens) {
  switch (tokens) {
    case 1:
      return rows_times_tokens<Arithmetic, 1, kRows>(call, m, step, n);
    case 2:
      return rows_times_tokens<Arithmetic, 2, kRows>(call, m, step, n);
    case 3:
      return rows_times_tokens<Arithmetic, 3, kRows>(call, m, step, n);
    case 4:
      return rows_times_tokens<Arithmetic, 4, kRows>(call, m, step, n);
  }
}

// kStreams rows side by side, and up to four tokens at a time; for the later ones the rows are
// still in the cache.
template <class Arithmetic, size_t kStreams>
void rows_side_by_side(const LinearCall& call, size_t begin, size_t end) {
  const size_t groups = (call.tokens + 3) / 4;
  const size_t tokens = (call.tokens + groups - 1) / groups;
  const auto times_all = [&](auto rows, size_t m, size_t step) {
    for (size_t n = 0; n < call.tokens; n += tokens) {
      const size_t left = call.tokens - n;
      rows(call, m, step, n, left < tokens ? left : tokens);
    }
  };
  const size_t step = (end - begin) / kStreams;
  for (size_t m = begin; m < begin + step; ++m)
    times_all(rows_times_tokens<Arithmetic, kStreams>, m, step);
  for (size_t m = begin + kStreams * step; m < end; ++m)
    times_all(rows_times_tokens<Arithmetic, 1>, m, 1);
}

// As many rows as there are registers for their sums.
template <class Arithmetic>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  if (call.tokens <= 2) return rows_side_by_side<Arithmetic, kVectorRows>(call, begin, end);
  rows_side_by_side<Arithmetic, kVectorRows / 2>(call, begin, end);
}

void unpack_row(const unsigned char* low, const unsigned char* high, unsigned char base,
                size_t depth, uint16_t* out) noexcept {
  const __m512i uppers = upper_bytes(base);
  const __m512i lower_half = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i upper_half = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (size_t k = 0; k < depth; k += kPackedBlock) {
    const Unpacked weights = unpack(low + k, high + k / 2, uppers);
    _mm512_storeu_si512(out + k,
                        _mm512_permutex2var_epi64(weights.first, lower_half, weights.second));
    _mm512_storeu_si512(out + k + 32,
                        _mm512_permutex2var_epi64(weights.first, upper_half, weights.second));
  }
}

}  // namespace
}  // namespace gptoss

// Linear times a few tokens with AVX-512, for any Arithmetic, which says what one of the 16 lanes
// of a register holds:
//
//   static constexpr size_t kLaneBytes;  weight bytes that become one lane
//   static __m512 load(const unsigned char* address);  16 lanes of weights, from any address
//   static __m512 load(const unsigned char* address, size_t bytes);
//       the same of `bytes` bytes, then zeros
//   static __m512 multiply_add(__m512 weights, __m512 tokens, __m512 sum);
//
// Weights come from Stored<Arithmetic>, or from a class that has the same members and makes its
// lanes otherwise.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include "linear/linear_kernels.h"

namespace gptoss {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kCacheLine = 64;
constexpr size_t kAhead = 512;        // bytes of each row to prefetch
constexpr size_t kVectorTokens = 24;  // beyond, the blocked product is the faster

constexpr size_t least(size_t a, size_t b) { return a < b ? a : b; }

// The first `count` of 16 lanes.
__mmask16 first(size_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff : (1u << count) - 1);
}

// Weights that multiply as they lie: 16 lanes of row `row` from `lane` on.
template <class Arithmetic>
struct Stored {
  static constexpr size_t kLaneBytes = Arithmetic::kLaneBytes;
  static __m512 load(const LinearCall& call, size_t row, size_t lane) {
    return Arithmetic::load(call.weight + row * call.row_bytes + lane * kLaneBytes);
  }
  // The same where the row may end before, with zeros beyond its end.
  static __m512 load_rest(const LinearCall& call, size_t row, size_t lane) {
    const size_t offset = lane * kLaneBytes;
    return Arithmetic::load(call.weight + row * call.row_bytes + offset, call.row_bytes - offset);
  }
};

// kRows weight rows, from m on and `step` rows apart, times kTokens tokens from `first_token` on.
// The rows share the loads of the tokens, which together no longer fit the first-level cache, and
// each is a stream of its own from memory: a single one would wait at the start of every page,
// where the processor's own prefetcher stops.
template <class Arithmetic, class Weights, size_t kTokens, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t step, size_t first_token) {
  const float* x = call.x + first_token * call.lanes;
  float* y = call.y + first_token * call.rows;
  const unsigned char* rows = call.weight + m * call.row_bytes;
  __m512 sums[kRows][kTokens];
#pragma GCC unroll 8  // these loops are unrolled to keep the sums in registers
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n) sums[r][n] = _mm512_setzero_ps();
  }
  const auto add = [&](size_t lane, __mmask16 mask, const auto& load) {
    __m512 weights[kRows];
#pragma GCC unroll 8
    for (size_t r = 0; r < kRows; ++r) weights[r] = load(m + r * step, lane);
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n) {
      const __m512 token = _mm512_maskz_loadu_ps(mask, x + n * call.lanes + lane);
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r)
        sums[r][n] = Arithmetic::multiply_add(weights[r], token, sums[r][n]);
    }
  };
  const size_t full_lanes = call.row_bytes / Weights::kLaneBytes;
  size_t lane = 0;
  for (; lane + kLanes <= full_lanes; lane += kLanes) {
    if (lane * Weights::kLaneBytes % kCacheLine == 0) {
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) {
        _mm_prefetch(rows + r * step * call.row_bytes + lane * Weights::kLaneBytes + kAhead,
                     _MM_HINT_T0);
      }
    }
    add(lane, 0xffff, [&](size_t row, size_t at) { return Weights::load(call, row, at); });
  }
  if (lane < call.lanes) {
    add(lane, first(call.lanes - lane),
        [&](size_t row, size_t at) { return Weights::load_rest(call, row, at); });
  }
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
    const size_t row = m + r * step;
    const float bias = call.bias == nullptr ? 0.0f : call.bias[row];
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n)
      y[n * call.rows + row] = _mm512_reduce_add_ps(sums[r][n]) + bias;
  }
}

// The same rows times tokens [n, n + tokens), at most eight.
template <class Arithmetic, class Weights, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t step, size_t n, size_t tokens) {
  switch (tokens) {
    case 1:
      return rows_times_tokens<Arithmetic, Weights, 1, kRows>(call, m, step, n);
    case 2:
      return rows_times_tokens<Arithmetic, Weights, 2, kRows>(call, m, step, n);
    case 3:
      return rows_times_tokens<Arithmetic, Weights, 3, kRows>(call, m, step, n);
    case 4:
      return rows_times_tokens<Arithmetic, Weights, 4, kRows>(call, m, step, n);
    case 5:
      return rows_times_tokens<Arithmetic, Weights, 5, kRows>(call, m, step, n);
    case 6:
      return rows_times_tokens<Arithmetic, Weights, 6, kRows>(call, m, step, n);
    case 7:
      return rows_times_tokens<Arithmetic, Weights, 7, kRows>(call, m, step, n);
    case 8:
      return rows_times_tokens<Arithmetic, Weights, 8, kRows>(call, m, step, n);
  }
}

// kStreams rows side by side, and up to eight tokens at a time; for the later ones the rows are
// still in the cache.
template <class Arithmetic, class Weights, size_t kStreams>
void rows_side_by_side(const LinearCall& call, size_t begin, size_t end) {
  const size_t groups = (call.tokens + 7) / 8;
  const size_t tokens = (call.tokens + groups - 1) / groups;
  const auto times_all = [&](auto rows, size_t m, size_t step) {
    for (size_t n = 0; n < call.tokens; n += tokens) {
      rows(call, m, step, n, least(tokens, call.tokens - n));
    }
  };
  const size_t step = (end - begin) / kStreams;
  for (size_t m = begin; m < begin + step; ++m)
    times_all(rows_times_tokens<Arithmetic, Weights, kStreams>, m, step);
  for (size_t m = begin + kStreams * step; m < end; ++m)
    times_all(rows_times_tokens<Arithmetic, Weights, 1>, m, 1);
}

template <class Arithmetic, class Weights = Stored<Arithmetic>>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  // As many rows as there are registers for their sums.
  if (call.tokens <= 2)
    return rows_side_by_side<Arithmetic, Weights, kVectorRows>(call, begin, end);
  rows_side_by_side<Arithmetic, Weights, kVectorRows / 2>(call, begin, end);
}

}  // namespace
}  // namespace gptoss

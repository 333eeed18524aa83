// How the kernels for few tokens go through a run of rows: several side by side, each a stream of
// its own from memory, since a single one would wait at the start of every page, where the
// processor's own prefetcher stops.
//
// A Kernel multiplies kRows weight rows, from m on and `step` rows apart, with kTokens tokens from
// `first_token` on:
//
//   template <size_t kTokens, size_t kRows>
//   static void multiply(const LinearCall& call, size_t m, size_t step, size_t first_token);
//
// Included by files that are compiled for one level, with a Kernel of its own in an anonymous
// namespace: so every copy of this code stays in its file.
#pragma once

#include "linear/linear_kernels.h"

namespace gptoss {

// The rows times `tokens` tokens, at most kMost.
template <class Kernel, size_t kRows, size_t kMost>
void multiply_some(const LinearCall& call, size_t m, size_t step, size_t first_token,
                   size_t tokens) {
  if (tokens == kMost) return Kernel::template multiply<kMost, kRows>(call, m, step, first_token);
  if constexpr (kMost > 1)
    multiply_some<Kernel, kRows, kMost - 1>(call, m, step, first_token, tokens);
}

// The rows times all tokens, in groups of nearly equal size; for the later ones the rows are still
// in the cache.
template <class Kernel, size_t kRows, size_t kMost>
void multiply_all(const LinearCall& call, size_t m, size_t step) {
  const size_t groups = (call.tokens + kMost - 1) / kMost;
  const size_t tokens = (call.tokens + groups - 1) / groups;
  for (size_t n = 0; n < call.tokens; n += tokens) {
    const size_t left = call.tokens - n;
    multiply_some<Kernel, kRows, kMost>(call, m, step, n, left < tokens ? left : tokens);
  }
}

// Rows [begin, end), kStreams at a time, times up to kMost tokens at a time.
template <class Kernel, size_t kStreams, size_t kMost>
void multiply_streams(const LinearCall& call, size_t begin, size_t end) {
  const size_t step = (end - begin) / kStreams;
  for (size_t m = begin; m < begin + step; ++m)
    multiply_all<Kernel, kStreams, kMost>(call, m, step);
  for (size_t m = begin + kStreams * step; m < end; ++m) multiply_all<Kernel, 1, kMost>(call, m, 1);
}

// Writes what the lanes of each sum add up to, and the bias.
template <class V, size_t kRows, size_t kTokens>
[[gnu::always_inline]] inline void write_totals(const LinearCall& call, size_t m, size_t step,
                                                size_t first_token,
                                                const typename V::Vector (&sums)[kRows][kTokens]) {
#pragma GCC unroll 8
  for (size_t r = 0; r < kRows; ++r) {
    const size_t row = m + r * step;
    const float bias = call.bias == nullptr ? 0.0f : call.bias[row];
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n)
      call.y[(first_token + n) * call.rows + row] = V::total(sums[r][n]) + bias;
  }
}

}  // namespace gptoss

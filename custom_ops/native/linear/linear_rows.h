// Linear times a few tokens, once for the vector widths. `V` is one of machine/vectors_LEVEL.h.
// Weights say what the V::kLanes lanes of a register hold:
//
//   static constexpr size_t kLaneBytes;  weight bytes that become one lane
//   static V::Vector load(const LinearCall& call, size_t row, size_t lane);
//       lanes of row `row` from `lane` on
//   static V::Vector load_rest(const LinearCall& call, size_t row, size_t lane);
//       the same where the row ends before, with zeros beyond its end
//
// and Arithmetic what they do:
//
//   static V::Vector multiply_add(V::Vector weights, V::Vector tokens, V::Vector sum);
//
// Included as linear_streams.h.
#pragma once

#include "linear/linear_streams.h"
#include "linear/linear_weights.h"

namespace gptoss {

constexpr size_t kRowAhead = 512;  // bytes of each row to prefetch
constexpr size_t kFewTokens = 24;  // beyond, the blocked product is the faster

// The rows share the loads of the tokens, which together no longer fit the first-level cache.
template <class V, class Arithmetic, class Weights>
struct RowProducts {
  using Vector = typename V::Vector;

  template <size_t kTokens, size_t kRows>
  static void multiply(const LinearCall& call, size_t m, size_t step, size_t first_token) {
    const float* x = call.x + first_token * call.lanes;
    const unsigned char* rows = call.weight + m * call.row_bytes;
    Vector sums[kRows][kTokens];
#pragma GCC unroll 8  // these loops are unrolled to keep the sums in registers
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (size_t n = 0; n < kTokens; ++n) sums[r][n] = V::zero();
    }
    const auto add = [&](size_t lane, const auto& load, const auto& load_token) {
      // The fewer of both wait in registers for the others.
      if constexpr (kTokens < kRows) {
        Vector tokens[kTokens];
#pragma GCC unroll 8
        for (size_t n = 0; n < kTokens; ++n) tokens[n] = load_token(x + n * call.lanes + lane);
#pragma GCC unroll 8
        for (size_t r = 0; r < kRows; ++r) {
          const Vector weights = load(m + r * step, lane);
#pragma GCC unroll 8
          for (size_t n = 0; n < kTokens; ++n)
            sums[r][n] = Arithmetic::multiply_add(weights, tokens[n], sums[r][n]);
        }
      } else {
        Vector weights[kRows];
#pragma GCC unroll 8
        for (size_t r = 0; r < kRows; ++r) weights[r] = load(m + r * step, lane);
#pragma GCC unroll 8
        for (size_t n = 0; n < kTokens; ++n) {
          const Vector token = load_token(x + n * call.lanes + lane);
#pragma GCC unroll 8
          for (size_t r = 0; r < kRows; ++r)
            sums[r][n] = Arithmetic::multiply_add(weights[r], token, sums[r][n]);
        }
      }
    };
    const size_t full_lanes = call.row_bytes / Weights::kLaneBytes;
    size_t lane = 0;
    for (; lane + V::kLanes <= full_lanes; lane += V::kLanes) {
      if (lane * Weights::kLaneBytes % kLine == 0) {
#pragma GCC unroll 8
        for (size_t r = 0; r < kRows; ++r) {
          __builtin_prefetch(rows + r * step * call.row_bytes + lane * Weights::kLaneBytes +
                             kRowAhead);
        }
      }
      add(
          lane, [&](size_t row, size_t at) { return Weights::load(call, row, at); },
          [](const float* at) { return V::load(at); });
    }
    if (lane < call.lanes) {
      add(
          lane, [&](size_t row, size_t at) { return Weights::load_rest(call, row, at); },
          [&](const float* at) { return V::load_some(at, call.lanes - lane); });
    }
    write_totals<V>(call, m, step, first_token, sums);
  }
};

// As many rows and tokens as there are registers for their sums.
template <class V, class Arithmetic, class Weights>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  using Kernel = RowProducts<V, Arithmetic, Weights>;
  if constexpr (V::kRegisters < 32) return multiply_streams<Kernel, 4, 3>(call, begin, end);
  if (call.tokens <= 2) return multiply_streams<Kernel, kVectorRows, 2>(call, begin, end);
  multiply_streams<Kernel, kVectorRows / 2, 8>(call, begin, end);
}

}  // namespace gptoss

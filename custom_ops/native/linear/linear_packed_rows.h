// LinearPacked times a few tokens, once for the vector widths. An Unpack makes bfloat16 of weights:
//
//   Uppers; upper_bytes(base)    a table of the upper bytes that a row's codes stand for
//   kGroup                       weights that are unpacked together, kPackedBlock or a part of it
//   Weights                      these, as two registers of bfloat16, `first` and `second`
//   unpack(low, high, group, uppers)   group `group` of the block that begins at low and high
//
// and an Arithmetic multiplies them with a token's:
//
//   static constexpr size_t kLanes;  lanes of kGroup values of a token
//   static V::Vector multiply_add(const Weights& weights, const float* token, V::Vector sum);
//
// A byte permutation turns 4 bits into the upper byte of a bfloat16, and unpacking puts it beside
// the lower one. Included as linear_streams.h.
#pragma once

#include "linear/linear_packed_kernels.h"
#include "linear/linear_streams.h"

namespace gptoss {

// Bytes of each row's lower plane to prefetch: what is asked for shares the first-level cache with
// the tokens.
constexpr size_t kPlaneAhead = 384;

template <class V, class Unpack, class Arithmetic>
struct PackedProducts {
  static constexpr size_t kGroups = kPackedBlock / Unpack::kGroup;

  template <size_t kTokens, size_t kRows>
  static void multiply(const LinearCall& call, size_t m, size_t step, size_t first_token) {
    const PackedWeight& packed = *call.packed;
    const size_t half = call.depth / 2;
    const float* x = call.x + first_token * call.lanes;
    const unsigned char* low = call.weight + m * call.depth;
    const unsigned char* high = packed.high + m * half;
    typename Unpack::Uppers uppers[kRows];
    typename V::Vector sums[kRows][kTokens];
#pragma GCC unroll 8  // these loops are unrolled to keep the sums in registers
    for (size_t r = 0; r < kRows; ++r) {
      uppers[r] = Unpack::upper_bytes(packed.bases[m + r * step]);
#pragma GCC unroll 8
      for (size_t n = 0; n < kTokens; ++n) sums[r][n] = V::zero();
    }
    for (size_t k = 0; k < call.depth; k += kPackedBlock, x += kGroups * Arithmetic::kLanes) {
      // A line of `high` lasts for two blocks. With more tokens half of the rows ask at each: the
      // branch between rows also keeps the compiler from holding the tokens of one for the next,
      // in more registers than there are.
      if (kTokens <= 2 && k % (2 * kPackedBlock) == 0) {
#pragma GCC unroll 8
        for (size_t r = 0; r < kRows; ++r)
          __builtin_prefetch(high + r * step * half + (k + kPlaneAhead) / 2);
      }
#pragma GCC unroll 8
      for (size_t r = 0; r < kRows; ++r) {
        const unsigned char* low_row = low + r * step * call.depth + k;
        const unsigned char* high_row = high + r * step * half + k / 2;
        __builtin_prefetch(low_row + kPlaneAhead);
        if (kTokens > 2 && (k / kPackedBlock + r) % 2 == 0)
          __builtin_prefetch(high_row + kPlaneAhead / 2);
#pragma GCC unroll 2
        for (size_t group = 0; group < kGroups; ++group) {
          const auto weights = Unpack::unpack(low_row, high_row, group, uppers[r]);
          const float* token = x + group * Arithmetic::kLanes;
#pragma GCC unroll 8
          for (size_t n = 0; n < kTokens; ++n)
            sums[r][n] = Arithmetic::multiply_add(weights, token + n * call.lanes, sums[r][n]);
        }
      }
    }
    write_totals<V>(call, m, step, first_token, sums);
  }
};

// Four rows, whose two planes are eight streams: more would share a few sets of the first-level
// cache where rows lie a multiple of 4 KiB apart. And as many tokens as there are registers for
// their sums: unpacking rows again for the next ones takes less than fewer rows would.
template <class V, class Unpack, class Arithmetic>
void packed_vectors(const LinearCall& call, size_t begin, size_t end) noexcept {
  using Kernel = PackedProducts<V, Unpack, Arithmetic>;
  multiply_streams<Kernel, 4, V::kRegisters == 32 ? 4 : 2>(call, begin, end);
}

// One row as bfloat16, in order.
template <class Unpack>
void unpack_row(const unsigned char* low, const unsigned char* high, unsigned char base,
                size_t depth, uint16_t* out) noexcept {
  const typename Unpack::Uppers uppers = Unpack::upper_bytes(base);
  for (size_t k = 0; k < depth; k += kPackedBlock) {
    for (size_t group = 0; group < kPackedBlock / Unpack::kGroup; ++group) {
      const auto weights = Unpack::unpack(low + k, high + k / 2, group, uppers);
      Unpack::store(weights, out + k + group * Unpack::kGroup);
    }
  }
}

// Float32 arithmetic on weights widened as they are unpacked, which is exact: tokens are in the
// order of TokenPacking packed_floats.
template <class V, class Unpack>
struct PackedFloats {
  static constexpr size_t kLanes = Unpack::kGroup;

  static typename V::Vector multiply_add(const typename Unpack::Weights& weights,
                                         const float* token, typename V::Vector sum) {
    constexpr size_t next = V::kLanes;
    sum = V::add_product(sum, Unpack::even(weights.first), V::load(token));
    sum = V::add_product(sum, Unpack::odd(weights.first), V::load(token + next));
    sum = V::add_product(sum, Unpack::even(weights.second), V::load(token + 2 * next));
    return V::add_product(sum, Unpack::odd(weights.second), V::load(token + 3 * next));
  }
};

template <class V, class Unpack>
PackedKernels packed_float_kernels(const TokenPacking& packing) {
  return {packed_vectors<V, Unpack, PackedFloats<V, Unpack>>, TokenFormat::packed, packing,
          unpack_row<Unpack>};
}

}  // namespace gptoss

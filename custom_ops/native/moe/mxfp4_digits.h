// Activations as integers in digits of 8 bits, for kernels that multiply MXFP4 with eight-bit dot
// products.
//
// A level doubled is an integer, so a block's dot product is one too once its 32 activations are
// integers of a common scale. Such an integer is written in signed digits of base 256, and each
// digit takes one pass of 8-bit dot products over the decoded weights: one digit is mode int8; two
// hold bfloat16's eight bits 2^8 below the block's largest value; three are a fixed point of 23
// bits, finer than two terms of bfloat16 and cheaper. Sums of a block are exact in int32; blocks
// add up in float32.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include "machine/digits.h"
#include "moe/mxfp4_levels.h"

namespace gptoss {
namespace {

constexpr size_t kQuad = 4;  // blocks whose low nibbles fill a register
// The offset levels in each quarter of a register, for instructions that look up nibbles.
__m512i level_table() {
  return _mm512_broadcast_i32x4(
      _mm_load_si128(reinterpret_cast<const __m128i*>(kOffsetLevels.bytes)));
}

// A token's values for four blocks, in the order in which weights meet them.
template <size_t digits>
struct alignas(64) Quad {
  // The values that meet low nibbles, then those that meet high ones; the last digit first; 16 for
  // each block.
  int8_t values[2][digits][kQuad * kBlockBytes];
  // By block −12 · Σ values, which takes the offset back, in the first of its four lanes; zero in
  // the others.
  int32_t correction[kLanes];
  float scale[kLanes];  // by block, in its four lanes; includes the half that undoes the doubled
                        // levels
};

size_t quads_of(size_t width) { return (width / kBlock + kQuad - 1) / kQuad; }

template <size_t digits>
size_t packed_bytes(size_t tokens, size_t width) {
  return tokens * quads_of(width) * sizeof(Quad<digits>);
}

template <size_t digits>
void pack_block(const float* x, Quad<digits>& quad, size_t block) {
  const auto [first, second, scale] = to_integers<digits == 2>(x, kLargest<digits>);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  store_digits(_mm512_permutex2var_epi32(first, even, second), quad.values[0], block * kBlockBytes);
  store_digits(_mm512_permutex2var_epi32(first, odd, second), quad.values[1], block * kBlockBytes);
  const int sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
  _mm_store_si128(reinterpret_cast<__m128i*>(quad.correction + kQuad * block),
                  _mm_setr_epi32(-kOffset * sum, 0, 0, 0));
  _mm_store_ps(quad.scale + kQuad * block, _mm_set1_ps(scale * 0.5f));
}

// The blocks that a last quad lacks: zeros, which multiply the zeros read for the weights.
template <size_t digits>
void pack_nothing(Quad<digits>& quad, size_t block) {
  for (size_t half = 0; half < 2; ++half) {
    for (size_t digit = 0; digit < digits; ++digit) {
      __m128i* values = reinterpret_cast<__m128i*>(quad.values[half][digit] + block * kBlockBytes);
      _mm_store_si128(values, _mm_setzero_si128());
    }
  }
  _mm_store_si128(reinterpret_cast<__m128i*>(quad.correction + kQuad * block), _mm_setzero_si128());
  _mm_store_ps(quad.scale + kQuad * block, _mm_setzero_ps());
}

template <size_t digits>
void pack(const float* x, size_t first, size_t count, size_t width, size_t token,
          std::byte* packed) {
  auto* quads = reinterpret_cast<Quad<digits>*>(packed) + token * quads_of(width);
  const size_t begin = first / kBlock, end = begin + count / kBlock;
  for (size_t block = begin; block < end; ++block) {
    pack_block(x + (block - begin) * kBlock, quads[block / kQuad], block % kQuad);
  }
  if (end != width / kBlock) return;
  for (size_t block = end; block % kQuad != 0; ++block)
    pack_nothing(quads[block / kQuad], block % kQuad);
}

}  // namespace
}  // namespace gptoss

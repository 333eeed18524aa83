// MXFP4 times many tokens with AVX-512 VNNI, for any Decode (mxfp4_few.h) and number of digits.
//
// Lane r of a register has four weights of row r, and a dot product adds their products with the
// same four values of a token. Sums of a block and its digits are exact in int32: the last digit of
// a block joins what the ones before it left, shifted by its eight bits. (A sum may wrap while the
// offset of the weights is in it; what remains when it is taken back fits.)
//
// Included by files that are compiled with AVX-512 alone, as mxfp4_transpose.h.
#pragma once

#include "machine/digits.h"
#include "moe/mxfp4_levels.h"
#include "moe/mxfp4_many.h"
#include "moe/mxfp4_transpose.h"

namespace gptoss {
namespace {

template <class Decode, size_t digits>
struct VnniTile {
  static constexpr size_t kTokens = 6, kVectors = 2;  // 12 sums of each kind in 32 registers
  static constexpr size_t kRows = kVectors * kLanes;
  static constexpr size_t kBlocks = 16;         // 18 kB of decoded weights
  static constexpr size_t kSteps = kBlock / 4;  // four low nibbles, or four high ones, each

  struct TokenBlock {
    int8_t values[digits][kSteps][kTokens][4];  // the last digit first
    int32_t correction[kTokens];                // −12 · Σ values, which takes the offset back
    float scale[kTokens];                       // half of it: levels are doubled
  };

  struct alignas(64) PanelBlock {
    uint8_t weights[kSteps][kVectors][64];
    float scales[kVectors][kLanes];
  };

  static void pack(const float* x, size_t token, TokenBlock& block) {
    const auto [first, second, scale] = to_integers<digits == 2>(x, kLargest<digits>);
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    alignas(16) int8_t values[digits][kBlock];
    store_digits(_mm512_permutex2var_epi32(first, even, second), values, 0);
    store_digits(_mm512_permutex2var_epi32(first, odd, second), values, kBlockBytes);
    for (size_t digit = 0; digit < digits; ++digit) {
      for (size_t step = 0; step < kSteps; ++step)
        std::memcpy(block.values[digit][step][token], values[digit] + step * 4, 4);
    }
    block.correction[token] = -kOffset * _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
    block.scale[token] = scale * 0.5f;
  }

  static void decode(const Mxfp4Rows& rows, size_t row, size_t begin, size_t end,
                     PanelBlock* panel) {
    const size_t blocks = rows.width / kBlock, stride = blocks * kBlockBytes;
    for (size_t v = 0; v < kVectors; ++v) {
      const size_t first = (row + v * kLanes) * blocks;
      const Across scales = scales_across(rows.scales + first + begin, blocks, end - begin);
      const uint8_t* bytes = rows.blocks + first * kBlockBytes;
      for (size_t block = begin; block < end; ++block) {
        PanelBlock& decoded = panel[block - begin];
        const Across weights = across(bytes + block * kBlockBytes, stride);
        for (size_t i = 0; i < 4; ++i) {
          _mm512_store_si512(decoded.weights[i][v], Decode::low(weights.dwords[i]));
          _mm512_store_si512(decoded.weights[4 + i][v], Decode::high(weights.dwords[i]));
        }
        _mm512_store_ps(decoded.scales[v], factors(scales, block - begin));
      }
    }
  }

  template <size_t tokens, bool add>
  static void multiply(const PanelBlock* panel, const TokenBlock* x, size_t blocks, float* out,
                       size_t stride) {
    __m512 sums[tokens][kVectors];
#pragma GCC unroll 6  // these loops are unrolled to keep the sums in registers
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) {
        sums[t][v] = add ? _mm512_loadu_ps(out + t * stride + v * kLanes) : _mm512_setzero_ps();
      }
    }
    for (size_t block = 0; block < blocks; ++block) {
      __m512i parts[tokens][kVectors];
      dot<tokens>(panel[block], x[block], parts);
#pragma GCC unroll 6
      for (size_t t = 0; t < tokens; ++t) {
        const __m512 scale = _mm512_set1_ps(x[block].scale[t]);
#pragma GCC unroll 2
        for (size_t v = 0; v < kVectors; ++v) {
          const __m512 partial = _mm512_mul_ps(_mm512_cvtepi32_ps(parts[t][v]), scale);
          sums[t][v] = _mm512_fmadd_ps(partial, _mm512_load_ps(panel[block].scales[v]), sums[t][v]);
        }
      }
    }
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v)
        _mm512_storeu_ps(out + t * stride + v * kLanes, sums[t][v]);
    }
  }

  // A block's integers.
  template <size_t tokens>
  static void dot(const PanelBlock& panel, const TokenBlock& x,
                  __m512i (&parts)[tokens][kVectors]) {
#pragma GCC unroll 3
    for (size_t pass = 0; pass < digits; ++pass) {
      const size_t digit = digits - 1 - pass;
#pragma GCC unroll 6
      for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
        for (size_t v = 0; v < kVectors; ++v) {
          parts[t][v] = pass == 0 ? start(x, t) : _mm512_slli_epi32(parts[t][v], 8);
        }
      }
#pragma GCC unroll 8
      for (size_t step = 0; step < kSteps; ++step) {
        __m512i weights[kVectors];
#pragma GCC unroll 2
        for (size_t v = 0; v < kVectors; ++v)
          weights[v] = _mm512_load_si512(panel.weights[step][v]);
#pragma GCC unroll 6
        for (size_t t = 0; t < tokens; ++t) {
          const __m512i values = broadcast(x.values[digit][step][t]);
#pragma GCC unroll 2
          for (size_t v = 0; v < kVectors; ++v)
            parts[t][v] = _mm512_dpbusd_epi32(parts[t][v], weights[v], values);
        }
      }
    }
    if constexpr (digits > 1) {
#pragma GCC unroll 6
      for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
        for (size_t v = 0; v < kVectors; ++v)
          parts[t][v] = _mm512_add_epi32(parts[t][v], _mm512_set1_epi32(x.correction[t]));
      }
    }
  }

  // One digit begins with the correction, which costs nothing; more would shift it.
  static __m512i start(const TokenBlock& x, size_t t) {
    return digits == 1 ? _mm512_set1_epi32(x.correction[t]) : _mm512_setzero_si512();
  }

  static __m512i broadcast(const int8_t* four) {
    int32_t bits;
    std::memcpy(&bits, four, sizeof bits);
    return _mm512_set1_epi32(bits);
  }
};

}  // namespace
}  // namespace gptoss

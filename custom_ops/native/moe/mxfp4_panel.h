// MXFP4 times many tokens with AVX-512 VNNI: sixteen rows are decoded to a panel that all tokens
// pass.
//
// A Decode as in mxfp4_few_avx512.h. Included by files that are compiled with AVX-512 alone, as
// mxfp4_digits.h.
#pragma once

#include "moe/mxfp4_digits.h"

namespace gptoss {
namespace {

// Sixteen rows of one block, decoded: lane r of a register holds four weights of row r.
struct alignas(64) PanelBlock {
  uint8_t weights[2][kQuad][64];  // low nibbles, then high ones; by group of four bytes of a block
  float scales[kLanes];
};

size_t scratch_bytes(size_t, size_t width) { return width / kBlock * sizeof(PanelBlock); }

// Four rows' blocks, `stride` bytes from one to the next, four of them between the rows of a
// register.
__m512i load_rows(const uint8_t* bytes, size_t stride) {
  const auto row = [&](size_t r) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + r * stride));
  };
  __m512i rows = _mm512_castsi128_si512(row(0));
  rows = _mm512_inserti32x4(rows, row(4), 1);
  rows = _mm512_inserti32x4(rows, row(8), 2);
  return _mm512_inserti32x4(rows, row(12), 3);
}

template <class Decode>
void decode_panel(const Mxfp4Rows& rows, size_t first, PanelBlock* panel) {
  const size_t blocks = rows.width / kBlock, stride = blocks * kBlockBytes;
  for (size_t block = 0; block < blocks; ++block) {
    const uint8_t* bytes = rows.blocks + (first * blocks + block) * kBlockBytes;
    const __m512i a = load_rows(bytes, stride), b = load_rows(bytes + stride, stride);
    const __m512i c = load_rows(bytes + 2 * stride, stride),
                  d = load_rows(bytes + 3 * stride, stride);
    const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
    const __m512i groups[kQuad] = {
        _mm512_unpacklo_epi64(ab_low, cd_low), _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high), _mm512_unpackhi_epi64(ab_high, cd_high)};
    for (size_t i = 0; i < kQuad; ++i) {
      _mm512_store_si512(panel[block].weights[0][i], Decode::low(groups[i]));
      _mm512_store_si512(panel[block].weights[1][i], Decode::high(groups[i]));
    }
    for (size_t r = 0; r < kLanes; ++r) {
      panel[block].scales[r] = scale_factor(rows.scales[(first + r) * blocks + block]);
    }
  }
}

// Sixteen rows against some tokens: a block's weights stay in registers while the tokens pass.
template <size_t digits, size_t tokens>
void multiply_panel(const PanelBlock* panel, size_t blocks, const Quad<digits>* quads, float* out,
                    size_t stride) {
  const size_t quads_a_token = (blocks + kQuad - 1) / kQuad;
  __m512 sums[tokens];
  for (size_t t = 0; t < tokens; ++t) sums[t] = _mm512_setzero_ps();
  for (size_t block = 0; block < blocks; ++block) {
    __m512i weights[2][kQuad];
    for (size_t half = 0; half < 2; ++half) {
      for (size_t i = 0; i < kQuad; ++i)
        weights[half][i] = _mm512_load_si512(panel[block].weights[half][i]);
    }
    const __m512 scale = _mm512_load_ps(panel[block].scales);
    for (size_t t = 0; t < tokens; ++t) {
      const Quad<digits>& quad = quads[t * quads_a_token + block / kQuad];
      const size_t lane = block % kQuad * kQuad;
      // A sum for each digit and half: short chains, or the instructions that wait would fill the
      // processor.
      __m512i parts[digits][2];
      for (size_t digit = 0; digit < digits; ++digit) {
        for (size_t half = 0; half < 2; ++half) {
          const bool corrected = digit == 0 && half == 0;
          parts[digit][half] =
              corrected ? _mm512_set1_epi32(quad.correction[lane]) : _mm512_setzero_si512();
          for (size_t i = 0; i < kQuad; ++i) {
            int32_t four;
            std::memcpy(&four, quad.values[half][digit] + (lane + i) * sizeof four, sizeof four);
            parts[digit][half] =
                _mm512_dpbusd_epi32(parts[digit][half], weights[half][i], _mm512_set1_epi32(four));
          }
        }
      }
      __m512i sum = _mm512_setzero_si512();
      for (size_t digit = digits; digit-- > 0;) {
        sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8),
                               _mm512_add_epi32(parts[digit][0], parts[digit][1]));
      }
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(quad.scale[lane]));
      sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, sums[t]);
    }
  }
  for (size_t t = 0; t < tokens; ++t) _mm512_storeu_ps(out + t * stride, sums[t]);
}

template <class Decode, size_t digits>
void multiply_many(const Mxfp4Rows& rows, const Quad<digits>* quads, size_t tokens,
                   PanelBlock* panel, float* out, size_t stride) {
  constexpr size_t kTile = 8;
  const size_t blocks = rows.width / kBlock, quads_a_token = quads_of(rows.width);
  for (size_t r = 0; r < rows.count; r += kLanes) {
    decode_panel<Decode>(rows, r, panel);
    size_t t = 0;
    for (; t + kTile <= tokens; t += kTile) {
      multiply_panel<digits, kTile>(panel, blocks, quads + t * quads_a_token, out + t * stride + r,
                                    stride);
    }
    for (; t < tokens; ++t) {
      multiply_panel<digits, 1>(panel, blocks, quads + t * quads_a_token, out + t * stride + r,
                                stride);
    }
  }
}

}  // namespace
}  // namespace gptoss

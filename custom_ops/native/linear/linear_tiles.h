// What the AMX products of Linear and LinearInt8 share: weights are the left operand, tokens the
// right one, and a tile holds 16 × 16 sums.
//
// Included by files that are compiled with AMX alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include "machine/amx_tiles.h"
#include "linear/linear_kernels.h"
#include "machine/vectors_avx512.h"

namespace gptoss {
namespace {

constexpr size_t least(size_t a, size_t b) { return a < b ? a : b; }

// Tiles 0 to 3 hold sums, 4 and 5 weights, 6 and 7 tokens.
void configure(size_t tile_width) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    const bool weights = tile == 4 || tile == 5;
    config.row_bytes[tile] =
        static_cast<uint16_t>(weights ? kLineBytes : tile_width * sizeof(float));
  }
  _tile_loadconfig(&config);
}

// Writes sums[m][t], of rows [m, end) and `tokens` tokens from `token` on but at most 16 of each,
// added to the bias, or where this is a later block of columns to what y holds.
template <bool first_block = true>
void store(const LinearCall& call, const float (&sums)[kTileRows][kTileRows], size_t m, size_t end,
           size_t token, size_t tokens) {
  if (m >= end) return;
  __m512 columns[kTileRows];
  for (size_t i = 0; i < kTileRows; ++i) columns[i] = _mm512_load_ps(sums[i]);
  Floats16::transpose(columns);
  const __mmask16 mask = Floats16::first(end - m);
  const __m512 bias =
      call.bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, call.bias + m);
  for (size_t t = 0; t < tokens; ++t) {
    float* y = call.y + (token + t) * call.rows + m;
    const __m512 start = first_block ? bias : _mm512_maskz_loadu_ps(mask, y);
    _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(columns[t], start));
  }
}

}  // namespace
}  // namespace gptoss

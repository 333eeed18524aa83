// Linear with AVX-512: its products with many tokens, for any Arithmetic and Weights of
// linear_avx512_rows.h, which holds those with few.
//
// Included by files that are compiled with AVX-512 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include "linear/linear_avx512_rows.h"

namespace gptoss {
namespace {

constexpr size_t kPanel = 2 * kLanes;  // weight rows that a tile multiplies together
constexpr size_t kTileWidth =
    14;  // tokens: 14 × 2 sums, 2 weights and 1 token fill 31 of 32 registers
constexpr size_t kPanelAhead = 8 * kPanel;  // of a panel, to the first-level cache

// Transposes 16 rows of 16 floats: pairs of rows, then pairs of pairs, then quarters of the
// registers.
void transpose(__m512 (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(t[i + j]), high = _mm512_castps_pd(t[i + 2 + j]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  // Now quarter q of r[4g + c] holds column 4q + c of rows 4g to 4g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x44),
                 b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xee);
    const __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x44);
    const __m512 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xee);
    t[c] = _mm512_shuffle_f32x4(a, d, 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
    t[8 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// Puts rows [m, m + 32) and lanes [lane, lane + count) of the weight into panel[lane][32]; rows
// from `end` on are zero. Fetches the lanes of the next block, which lie too far apart for the
// processor's own prefetcher.
template <class Weights>
void pack(const LinearCall& call, size_t m, size_t end, size_t lane, size_t count, float* panel) {
  for (size_t half = 0; half < kPanel; half += kLanes) {
    for (size_t at = 0; at < count; at += kLanes) {
      const size_t offset = (lane + at) * Weights::kLaneBytes;
      __m512 square[kLanes];
      for (size_t i = 0; i < kLanes; ++i) {
        const size_t row = m + half + i;
        square[i] = _mm512_setzero_ps();
        if (row >= end) continue;
        square[i] = Weights::load_rest(call, row, lane + at);
        if (offset % kCacheLine != 0) continue;
        _mm_prefetch(
            call.weight + row * call.row_bytes + offset + kBlockLanes * Weights::kLaneBytes,
            _MM_HINT_T1);
      }
      transpose(square);
      for (size_t i = 0; i < least(kLanes, count - at); ++i) {
        _mm512_store_ps(panel + (at + i) * kPanel + half, square[i]);
      }
    }
  }
}

// y[t][0..32) = start + Σ x[lane][t] · panel[lane][0..32) over the lanes, where start is the bias
// at the first block and what y holds at the later ones. What comes next is fetched meanwhile: the
// processor's own prefetcher stops at every page, which a tile reaches each seventy lanes.
struct Tile {
  const float* x;  // [lanes][kWidth]
  const float* panel;
  size_t lanes;
  const float* bias;  // of the first row, or null
  float* y;           // of the first token and row
  size_t stride;      // between tokens of y
  size_t tokens, rows;
  bool first_block;
  const float* next;  // tokens to fetch meanwhile, half as many as these
};

template <class Arithmetic, size_t kWidth>
void multiply(const Tile& tile) {
  __m512 low[kWidth], high[kWidth];
#pragma GCC unroll 14  // these loops are unrolled to keep the sums in registers
  for (size_t t = 0; t < kWidth; ++t) low[t] = high[t] = _mm512_setzero_ps();
  for (size_t t = 0; t < tile.tokens; ++t) {
    __builtin_prefetch(tile.y + t * tile.stride, 1);
    __builtin_prefetch(tile.y + t * tile.stride + kLanes, 1);
  }
  const float* x = tile.x;
  const float* panel = tile.panel;
  const float* next = tile.next;
  for (size_t lane = 0; lane < tile.lanes; ++lane, x += kWidth, panel += kPanel) {
    _mm_prefetch(next, _MM_HINT_T1);
    next += (kWidth + 1) / 2;
    _mm_prefetch(panel + kPanelAhead, _MM_HINT_T0);
    _mm_prefetch(panel + kPanelAhead + kLanes, _MM_HINT_T0);
    const __m512 weight_low = _mm512_load_ps(panel), weight_high = _mm512_load_ps(panel + kLanes);
#pragma GCC unroll 14
    for (size_t t = 0; t < kWidth; ++t) {
      const __m512 token = _mm512_set1_ps(x[t]);
      low[t] = Arithmetic::multiply_add(weight_low, token, low[t]);
      high[t] = Arithmetic::multiply_add(weight_high, token, high[t]);
    }
  }
  const __mmask16 mask_low = first(tile.rows);
  const __mmask16 mask_high = first(tile.rows > kLanes ? tile.rows - kLanes : 0);
#pragma GCC unroll 14
  for (size_t t = 0; t < kWidth; ++t) {
    if (t < tile.tokens) {
      float* y = tile.y + t * tile.stride;
      const float* start = tile.first_block ? tile.bias : y;
      if (start != nullptr) {
        low[t] = _mm512_add_ps(low[t], _mm512_maskz_loadu_ps(mask_low, start));
        high[t] = _mm512_add_ps(high[t], _mm512_maskz_loadu_ps(mask_high, start + kLanes));
      }
      _mm512_mask_storeu_ps(y, mask_low, low[t]);
      _mm512_mask_storeu_ps(y + kLanes, mask_high, high[t]);
    }
  }
}

using Multiply = void (*)(const Tile&);
template <class Arithmetic>
constexpr Multiply kMultiply[kTileWidth + 1] = {
    nullptr,
    multiply<Arithmetic, 1>,
    multiply<Arithmetic, 2>,
    multiply<Arithmetic, 3>,
    multiply<Arithmetic, 4>,
    multiply<Arithmetic, 5>,
    multiply<Arithmetic, 6>,
    multiply<Arithmetic, 7>,
    multiply<Arithmetic, 8>,
    multiply<Arithmetic, 9>,
    multiply<Arithmetic, 10>,
    multiply<Arithmetic, 11>,
    multiply<Arithmetic, 12>,
    multiply<Arithmetic, 13>,
    multiply<Arithmetic, 14>,
};

template <class Arithmetic, class Weights = Stored<Arithmetic>>
void blocked_product(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                     float* panels) noexcept {
  for (size_t lane = 0; lane < call.lanes || lane == 0;
       lane += kBlockLanes) {  // once even if there are no lanes: y becomes the bias
    const size_t lanes = least(kBlockLanes, call.lanes - lane);
    for (size_t m = begin; m < end; m += kPanel) {
      pack<Weights>(call, m, end, lane, lanes, panels + (m - begin) * kBlockLanes);
    }
    for (size_t tile = 0; tile < tiles.count; ++tile) {
      const size_t token = tile * tiles.width;
      const bool last = tile + 1 == tiles.count;  // the next block of lanes follows
      const float* next =
          tiles.packed + (last ? lane + lanes : (tile + 1) * call.lanes + lane) * tiles.width;
      for (size_t m = begin; m < end; m += kPanel, next += lanes * (tiles.width + 1) / 2) {
        kMultiply<Arithmetic>[tiles.width]({tiles.packed + (tile * call.lanes + lane) * tiles.width,
                                            panels + (m - begin) * kBlockLanes, lanes,
                                            call.bias == nullptr ? nullptr : call.bias + m,
                                            call.y + token * call.rows + m, call.rows,
                                            least(tiles.width, call.tokens - token),
                                            least(kPanel, end - m), lane == 0, next});
      }
    }
  }
}

}  // namespace
}  // namespace gptoss

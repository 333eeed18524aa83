// Linear with AVX-512, for any Arithmetic, which says what one of the 16 lanes of a register holds:
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
constexpr size_t kPanel = 2 * kLanes;  // weight rows that a tile multiplies together
constexpr size_t kTileWidth =
    14;  // tokens: 14 × 2 sums, 2 weights and 1 token fill 31 of 32 registers
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
// at the first block and what y holds at the later ones.
struct Tile {
  const float* x;  // [lanes][kWidth]
  const float* panel;
  size_t lanes;
  const float* bias;  // of the first row, or null
  float* y;           // of the first token and row
  size_t stride;      // between tokens of y
  size_t tokens, rows;
  bool first_block;
};

template <class Arithmetic, size_t kWidth>
void multiply(const Tile& tile) {
  __m512 low[kWidth], high[kWidth];
#pragma GCC unroll 14  // these loops are unrolled to keep the sums in registers
  for (size_t t = 0; t < kWidth; ++t) low[t] = high[t] = _mm512_setzero_ps();
  const float* x = tile.x;
  const float* panel = tile.panel;
  for (size_t lane = 0; lane < tile.lanes; ++lane, x += kWidth, panel += kPanel) {
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
      for (size_t m = begin; m < end; m += kPanel) {
        kMultiply<Arithmetic>[tiles.width]({tiles.packed + (tile * call.lanes + lane) * tiles.width,
                                            panels + (m - begin) * kBlockLanes, lanes,
                                            call.bias == nullptr ? nullptr : call.bias + m,
                                            call.y + token * call.rows + m, call.rows,
                                            least(tiles.width, call.tokens - token),
                                            least(kPanel, end - m), lane == 0});
      }
    }
  }
}

}  // namespace
}  // namespace gptoss

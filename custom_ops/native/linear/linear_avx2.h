// Linear with AVX2 and FMA, for any Weights, which says how 8 weights of a row become float32:
//
//   static constexpr size_t kBytes;
//       Of one weight.
//   static __m256 load(const LinearCall& call, size_t row, size_t k);
//       8 weights from column k on.
//   static __m256 load(const LinearCall& call, size_t row, size_t k, size_t count);
//       `count` < 8 weights, then zeros.
//
// Included by files that are compiled with AVX2 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include "linear/linear_kernels.h"

namespace gptoss {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kPanel = 2 * kLanes;  // weight rows that a tile multiplies together
constexpr size_t kCacheLine = 64;
constexpr size_t kTileWidth =
    6;  // tokens: 6 × 2 sums, 2 weights and 1 token value fill 15 of 16 registers

float sum_of(__m256 lanes) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// The first `count` < 8 values, then zeros, without reading beyond them.
__m256 load_tokens(const float* x, size_t count) {
  float lanes[kLanes] = {};
  __builtin_memcpy(lanes, x, count * sizeof(float));
  return _mm256_loadu_ps(lanes);
}

// kRows weight rows from m on times kTokens tokens, from token `n` on. The rows share the loads of
// the tokens. Meanwhile the next rows are fetched: the processor's own prefetcher stops at every
// page and at the end of every row.
template <class Weights, size_t kTokens, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t n) {
  const float* x = call.x + n * call.depth;
  __m256 sums[kRows][kTokens];
#pragma GCC unroll 4  // these loops are unrolled to keep the sums in registers
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (size_t t = 0; t < kTokens; ++t) sums[r][t] = _mm256_setzero_ps();
  }
  const auto add = [&](size_t k, const auto& load_weights, const auto& load_token) {
    __m256 tokens[kTokens];
#pragma GCC unroll 3
    for (size_t t = 0; t < kTokens; ++t) tokens[t] = load_token(x + t * call.depth + k);
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const __m256 weights = load_weights(m + r, k);
#pragma GCC unroll 3
      for (size_t t = 0; t < kTokens; ++t)
        sums[r][t] = _mm256_fmadd_ps(weights, tokens[t], sums[r][t]);
    }
  };
  size_t k = 0;
  for (; k + kLanes <= call.depth; k += kLanes) {
    if (k * Weights::kBytes % kCacheLine == 0) {
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        _mm_prefetch(call.weight + (m + kRows + r) * call.row_bytes + k * Weights::kBytes,
                     _MM_HINT_T0);
      }
    }
    add(
        k, [&](size_t row, size_t at) { return Weights::load(call, row, at); },
        [](const float* at) { return _mm256_loadu_ps(at); });
  }
  if (k < call.depth) {
    const size_t rest = call.depth - k;
    add(
        k, [&](size_t row, size_t at) { return Weights::load(call, row, at, rest); },
        [rest](const float* at) { return load_tokens(at, rest); });
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    const float bias = call.bias == nullptr ? 0.0f : call.bias[m + r];
#pragma GCC unroll 3
    for (size_t t = 0; t < kTokens; ++t)
      call.y[(n + t) * call.rows + m + r] = sum_of(sums[r][t]) + bias;
  }
}

// Three tokens at a time; for the later ones the rows are still in the cache.
template <class Weights, size_t kRows>
void rows_times_all_tokens(const LinearCall& call, size_t m) {
  size_t n = 0;
  for (; n + 3 <= call.tokens; n += 3) rows_times_tokens<Weights, 3, kRows>(call, m, n);
  if (call.tokens - n == 2) rows_times_tokens<Weights, 2, kRows>(call, m, n);
  if (call.tokens - n == 1) rows_times_tokens<Weights, 1, kRows>(call, m, n);
}

template <class Weights>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  constexpr size_t kRows = 4;  // as many as there are registers for
  size_t m = begin;
  for (; m + kRows <= end; m += kRows) rows_times_all_tokens<Weights, kRows>(call, m);
  for (; m < end; ++m) rows_times_all_tokens<Weights, 1>(call, m);
}

// Transposes 8 rows of 8 floats: pairs of rows, then pairs of pairs, then halves of the registers.
void transpose(__m256 (&r)[8]) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
      r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xee);
    }
  }
  // Now half h of r[4g + c] holds column 4h + c of rows 4g to 4g + 3.
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

// Widens rows [m, m + 16) and columns [k, k + depth) of the weight into panel[k][16]; rows from
// `end` on are zero.
template <class Weights>
void pack(const LinearCall& call, size_t m, size_t end, size_t k, size_t depth, float* panel) {
  for (size_t half = 0; half < kPanel; half += kLanes) {
    for (size_t at = 0; at < depth; at += kLanes) {
      __m256 square[kLanes];
      for (size_t i = 0; i < kLanes; ++i) {
        const size_t row = m + half + i;
        square[i] = _mm256_setzero_ps();
        if (row < end) {
          square[i] = depth - at < kLanes ? Weights::load(call, row, k + at, depth - at)
                                          : Weights::load(call, row, k + at);
        }
      }
      transpose(square);
      for (size_t i = 0; i < kLanes && at + i < depth; ++i) {
        _mm256_store_ps(panel + (at + i) * kPanel + half, square[i]);
      }
    }
  }
}

// y[t][0..16) = start + Σk x[k][t] · panel[k][0..16), where start is the bias at the first block of
// columns and what y holds at the later ones.
struct Tile {
  const float* x;  // [depth][kWidth]
  const float* panel;
  size_t depth;
  const float* bias;  // of the first row, or null
  float* y;           // of the first token and row
  size_t stride;      // between tokens of y
  size_t tokens, rows;
  bool first_block;
};

void finish(const Tile& tile, size_t t, __m256 low, __m256 high) {
  float* y = tile.y + t * tile.stride;
  const float* start = tile.first_block ? tile.bias : y;
  alignas(32) float sums[kPanel];
  _mm256_store_ps(sums, low);
  _mm256_store_ps(sums + kLanes, high);
  for (size_t m = 0; m < tile.rows; ++m) y[m] = start == nullptr ? sums[m] : start[m] + sums[m];
}

template <size_t kWidth>
void multiply(const Tile& tile) {
  __m256 low[kWidth], high[kWidth];
#pragma GCC unroll 6  // these loops are unrolled to keep the sums in registers
  for (size_t t = 0; t < kWidth; ++t) low[t] = high[t] = _mm256_setzero_ps();
  const float* x = tile.x;
  const float* panel = tile.panel;
  for (size_t k = 0; k < tile.depth; ++k, x += kWidth, panel += kPanel) {
    const __m256 weight_low = _mm256_load_ps(panel), weight_high = _mm256_load_ps(panel + kLanes);
#pragma GCC unroll 6
    for (size_t t = 0; t < kWidth; ++t) {
      const __m256 token = _mm256_broadcast_ss(x + t);
      low[t] = _mm256_fmadd_ps(token, weight_low, low[t]);
      high[t] = _mm256_fmadd_ps(token, weight_high, high[t]);
    }
  }
#pragma GCC unroll 6
  for (size_t t = 0; t < kWidth; ++t) {
    if (t < tile.tokens) finish(tile, t, low[t], high[t]);
  }
}

using Multiply = void (*)(const Tile&);
constexpr Multiply kMultiply[kTileWidth + 1] = {nullptr,     multiply<1>, multiply<2>, multiply<3>,
                                                multiply<4>, multiply<5>, multiply<6>};

template <class Weights>
void blocked_product(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                     float* panels) noexcept {
  for (size_t k = 0; k < call.depth || k == 0; k += kBlockLanes) {
    const size_t depth = call.depth - k < kBlockLanes ? call.depth - k : kBlockLanes;
    for (size_t m = begin; m < end; m += kPanel) {
      pack<Weights>(call, m, end, k, depth, panels + (m - begin) * kBlockLanes);
    }
    for (size_t tile = 0; tile < tiles.count; ++tile) {
      const size_t token = tile * tiles.width;
      const size_t tokens = call.tokens - token < tiles.width ? call.tokens - token : tiles.width;
      for (size_t m = begin; m < end; m += kPanel) {
        const size_t rows = end - m < kPanel ? end - m : kPanel;
        kMultiply[tiles.width]({tiles.packed + (tile * call.depth + k) * tiles.width,
                                panels + (m - begin) * kBlockLanes, depth,
                                call.bias == nullptr ? nullptr : call.bias + m,
                                call.y + token * call.rows + m, call.rows, tokens, rows, k == 0});
      }
    }
  }
}

constexpr size_t kVectorTokens = 24;  // beyond, the blocked product is the faster

template <class Weights>
constexpr LinearKernels kKernels{matrix_vector<Weights>,   TokenFormat::float32, kVectorTokens,
                                 blocked_product<Weights>, TokenFormat::float32, kTileWidth};

}  // namespace
}  // namespace gptoss

// Linear with AVX-512, float32 arithmetic on weights widened as they are read, which is exact.
//
// Compiled with AVX-512: everything here is in an anonymous namespace (CMakeLists.txt says why).
#include <immintrin.h>

#include <cstdint>

#include "linear_kernels.h"

namespace gptoss {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kPanel = 2 * kLanes;  // weight rows that a tile multiplies together
constexpr size_t kCacheLine = 64;
constexpr size_t kTileWidth = 14;      // tokens: 14 × 2 sums, 2 weights and 1 token value fill the 32 registers

// The first `count` of 16 lanes.
__mmask16 first(size_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff : (1u << count) - 1);
}

__m512 widen_bfloat16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// 16 weights as float32.
template <WeightType type>
__m512 load(const unsigned char* address) {
  if constexpr (type == WeightType::float32) return _mm512_loadu_ps(address);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(address));
  return type == WeightType::float16 ? _mm512_cvtph_ps(bits) : widen_bfloat16(bits);
}

// The same where only the lanes of `mask` may be read; the others are zero.
template <WeightType type>
__m512 load(const unsigned char* address, __mmask16 mask) {
  if constexpr (type == WeightType::float32) return _mm512_maskz_loadu_ps(mask, address);
  const __m256i bits = _mm256_maskz_loadu_epi16(mask, address);
  return type == WeightType::float16 ? _mm512_cvtph_ps(bits) : widen_bfloat16(bits);
}

// kRows weight rows from m on times kTokens tokens from `first_token` on. The rows share the loads of the tokens, which together no
// longer fit the first-level cache. Meanwhile the next rows are fetched: the processor's own prefetcher stops at
// every page and at the end of every row.
template <WeightType type, size_t kTokens, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t first_token) {
  const float* x = call.x + first_token * call.depth;
  float* y = call.y + first_token * call.rows;
  const size_t row_bytes = call.depth * bytes_of(type);
  const unsigned char* rows = call.weight + m * row_bytes;
  __m512 sums[kRows][kTokens];
#pragma GCC unroll 4  // these loops are unrolled to keep the sums in registers
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n) sums[r][n] = _mm512_setzero_ps();
  }
  const auto add = [&](size_t k, __mmask16 mask) {
    __m512 weights[kRows];
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      weights[r] = load<type>(rows + r * row_bytes + k * bytes_of(type), mask);
    }
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n) {
      const __m512 token = _mm512_maskz_loadu_ps(mask, x + n * call.depth + k);
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) sums[r][n] = _mm512_fmadd_ps(weights[r], token, sums[r][n]);
    }
  };
  size_t k = 0;
  for (; k + kLanes <= call.depth; k += kLanes) {
    if (k * bytes_of(type) % kCacheLine == 0) {
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        _mm_prefetch(rows + (kRows + r) * row_bytes + k * bytes_of(type), _MM_HINT_T0);
      }
    }
    add(k, 0xffff);
  }
  if (k < call.depth) add(k, first(call.depth - k));
#pragma GCC unroll 4
  for (size_t r = 0; r < kRows; ++r) {
    const float bias = call.bias == nullptr ? 0.0f : call.bias[m + r];
#pragma GCC unroll 8
    for (size_t n = 0; n < kTokens; ++n) {
      y[n * call.rows + m + r] = _mm512_reduce_add_ps(sums[r][n]) + bias;
    }
  }
}

// The same rows times tokens [n, n + tokens), at most eight.
template <WeightType type, size_t kRows>
void rows_times_tokens(const LinearCall& call, size_t m, size_t n, size_t tokens) {
  switch (tokens) {
    case 1: return rows_times_tokens<type, 1, kRows>(call, m, n);
    case 2: return rows_times_tokens<type, 2, kRows>(call, m, n);
    case 3: return rows_times_tokens<type, 3, kRows>(call, m, n);
    case 4: return rows_times_tokens<type, 4, kRows>(call, m, n);
    case 5: return rows_times_tokens<type, 5, kRows>(call, m, n);
    case 6: return rows_times_tokens<type, 6, kRows>(call, m, n);
    case 7: return rows_times_tokens<type, 7, kRows>(call, m, n);
    case 8: return rows_times_tokens<type, 8, kRows>(call, m, n);
  }
}

// Up to eight tokens at a time; for the later ones the rows are still in the cache.
template <WeightType type>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  const size_t groups = (call.tokens + 7) / 8;
  const size_t tokens = (call.tokens + groups - 1) / groups;
  const auto times_all = [&](auto rows, size_t m) {
    for (size_t n = 0; n < call.tokens; n += tokens) {
      rows(call, m, n, call.tokens - n < tokens ? call.tokens - n : tokens);
    }
  };
  size_t m = begin;
  for (; m + kVectorRows <= end; m += kVectorRows) times_all(rows_times_tokens<type, kVectorRows>, m);
  for (; m < end; ++m) times_all(rows_times_tokens<type, 1>, m);
}

// Transposes 16 rows of 16 floats: pairs of rows, then pairs of pairs, then quarters of the registers.
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
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x44), b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xee);
    const __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x44);
    const __m512 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xee);
    t[c] = _mm512_shuffle_f32x4(a, d, 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
    t[8 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// Widens rows [m, m + 32) and columns [k, k + depth) of the weight into panel[k][32]; rows from `end` on are zero.
// Fetches the columns of the next block, which lie too far apart for the processor's own prefetcher.
template <WeightType type>
void pack(const LinearCall& call, size_t m, size_t end, size_t k, size_t depth, float* panel) {
  for (size_t half = 0; half < kPanel; half += kLanes) {
    for (size_t at = 0; at < depth; at += kLanes) {
      const __mmask16 mask = first(depth - at);
      __m512 square[kLanes];
      for (size_t i = 0; i < kLanes; ++i) {
        const size_t row = m + half + i;
        const unsigned char* address = call.weight + (row * call.depth + k + at) * bytes_of(type);
        square[i] = row < end ? load<type>(address, mask) : _mm512_setzero_ps();
        if (at * bytes_of(type) % kCacheLine == 0) {
          _mm_prefetch(address + kBlockDepth * bytes_of(type), _MM_HINT_T1);
        }
      }
      transpose(square);
      for (size_t i = 0; i < kLanes && at + i < depth; ++i) {
        _mm512_store_ps(panel + (at + i) * kPanel + half, square[i]);
      }
    }
  }
}

// y[t][0..32) = start + Σk x[k][t] · panel[k][0..32), where start is the bias at the first block of columns and
// what y holds at the later ones.
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

template <size_t kWidth>
void multiply(const Tile& tile) {
  __m512 low[kWidth], high[kWidth];
  for (size_t t = 0; t < kWidth; ++t) low[t] = high[t] = _mm512_setzero_ps();
  const float* x = tile.x;
  const float* panel = tile.panel;
  for (size_t k = 0; k < tile.depth; ++k, x += kWidth, panel += kPanel) {
    const __m512 weight_low = _mm512_load_ps(panel), weight_high = _mm512_load_ps(panel + kLanes);
#pragma GCC unroll 14  // keeps the sums in registers
    for (size_t t = 0; t < kWidth; ++t) {
      const __m512 token = _mm512_set1_ps(x[t]);
      low[t] = _mm512_fmadd_ps(token, weight_low, low[t]);
      high[t] = _mm512_fmadd_ps(token, weight_high, high[t]);
    }
  }
  const __mmask16 mask_low = first(tile.rows);
  const __mmask16 mask_high = first(tile.rows > kLanes ? tile.rows - kLanes : 0);
#pragma GCC unroll 14
  for (size_t t = 0; t < kWidth; ++t) {
    if (t >= tile.tokens) break;
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

using Multiply = void (*)(const Tile&);
constexpr Multiply kMultiply[kTileWidth + 1] = {
    nullptr,     multiply<1>, multiply<2>,  multiply<3>,  multiply<4>,  multiply<5>,  multiply<6>, multiply<7>,
    multiply<8>, multiply<9>, multiply<10>, multiply<11>, multiply<12>, multiply<13>, multiply<14>};

template <WeightType type>
void blocked_product(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                     float* panels) noexcept {
  for (size_t k = 0; k < call.depth || k == 0; k += kBlockDepth) {
    const size_t depth = call.depth - k < kBlockDepth ? call.depth - k : kBlockDepth;
    for (size_t m = begin; m < end; m += kPanel) {
      pack<type>(call, m, end, k, depth, panels + (m - begin) * kBlockDepth);
    }
    for (size_t tile = 0; tile < tiles.count; ++tile) {
      const size_t token = tile * tiles.width;
      const size_t tokens = call.tokens - token < tiles.width ? call.tokens - token : tiles.width;
      for (size_t m = begin; m < end; m += kPanel) {
        const size_t rows = end - m < kPanel ? end - m : kPanel;
        kMultiply[tiles.width]({tiles.packed + (tile * call.depth + k) * tiles.width,
                                panels + (m - begin) * kBlockDepth, depth,
                                call.bias == nullptr ? nullptr : call.bias + m,
                                call.y + token * call.rows + m, call.rows, tokens, rows, k == 0});
      }
    }
  }
}

constexpr size_t kVectorTokens = 24;  // beyond, the blocked product is the faster

template <WeightType type>
constexpr LinearKernels kKernels{matrix_vector<type>, kVectorTokens, blocked_product<type>, kTileWidth};

}  // namespace

LinearKernels linear_avx512(WeightType type) {
  switch (type) {
    case WeightType::float32: return kKernels<WeightType::float32>;
    case WeightType::float16: return kKernels<WeightType::float16>;
    case WeightType::bfloat16: return kKernels<WeightType::bfloat16>;
  }
  return {};
}

}  // namespace gptoss

// The blocked product of LinearInt8 with AMX: 16 × 16 sums of 32 products at a time, a block of
// weights to each row.
//
// Tiles multiply bfloat16, so weight times scale is rounded to it: in modes bf16 and int8 to the
// nearest. In mode exact it is split into the nearest and the nearest to what is left, as tokens
// are, and of the four products the smallest is left out, 2^-18 of the largest.
#include "linear/linear_tiles.h"

namespace gptoss {
namespace {

constexpr size_t kTileFloats = kTileRows * kTileRows;

// The panel holds blocks of columns, in each the terms, in each tiles of 16 rows: [columns /
// 32][terms][4][16][32].
constexpr size_t kGroups = kBlockRows / kTileRows;
template <size_t terms>
constexpr size_t kPanelBlocks = kPanelFloats / (terms * kGroups * kTileFloats);

template <size_t terms>
float* tile_of(float* panel, size_t block, size_t term, size_t group) {
  return panel + ((block * terms + term) * kGroups + group) * kTileFloats;
}

// Two times 16 values as bfloat16, in order.
__m512i to_bf16(__m512 low, __m512 high) {
  const __m512bh pairs = _mm512_cvtne2ps_pbh(high, low);
  __m512i bits;
  __builtin_memcpy(&bits, &pairs, sizeof bits);  // compilers differ on how to cast
  return bits;
}

// What rounding took away; nothing where that is not a number.
__m512 remainder(__m512 value, __m256i rounded) {
  const __m512 nearest = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
  const __m512 finite = _mm512_abs_ps(nearest);
  const __mmask16 mask = _mm512_cmp_ps_mask(finite, _mm512_set1_ps(0x1.fffffep127f), _CMP_LE_OQ);
  return _mm512_maskz_sub_ps(mask, value, nearest);
}

// Rows [begin, end) and column blocks [first, first + count) as tiles; rows from `end` on are zero.
// Fetches the columns that come next, which lie too far apart for the processor's own prefetcher.
template <size_t terms>
void pack_rows(const LinearCall& call, size_t begin, size_t end, size_t first, size_t count,
               float* panel) {
  const size_t blocks = call.depth / kScaleBlock;
  for (size_t r = 0; r < kBlockRows; ++r) {
    const size_t group = r / kTileRows, place = r % kTileRows * kTileRows;
    if (begin + r >= end) {
      for (size_t i = 0; i < count * terms; ++i) {
        _mm512_store_ps(tile_of<terms>(panel, i / terms, i % terms, group) + place,
                        _mm512_setzero_ps());
      }
      continue;
    }
    const unsigned char* row = call.weight + (begin + r) * call.row_bytes;
    const unsigned char* scales = call.scales + (begin + r) * blocks * sizeof(float);
    for (size_t i = 0; i < count; ++i) {
      const unsigned char* address = row + (first + i) * kScaleBlock;
      if (i % 2 == 0) _mm_prefetch(address + count * kScaleBlock, _MM_HINT_T1);
      float scale;
      __builtin_memcpy(&scale, scales + (first + i) * sizeof scale,
                       sizeof scale);  // the address may be odd
      const __m512 factor = _mm512_set1_ps(scale);
      const __m512 low = _mm512_mul_ps(Floats16::from_int8(address), factor),
                   high = _mm512_mul_ps(Floats16::from_int8(address + Floats16::kLanes), factor);
      const __m512i nearest = to_bf16(low, high);
      _mm512_store_si512(tile_of<terms>(panel, i, 0, group) + place, nearest);
      if constexpr (terms == 2) {
        const __m512 low_rest = remainder(low, _mm512_castsi512_si256(nearest));
        const __m512 high_rest = remainder(high, _mm512_extracti64x4_epi64(nearest, 1));
        _mm512_store_si512(tile_of<terms>(panel, i, 1, group) + place,
                           to_bf16(low_rest, high_rest));
      }
    }
  }
}

// What the tiles multiply: `count` blocks of columns from `first` on, two groups of rows from m on.
struct Step {
  const LinearCall& call;
  const TokenTiles& tiles;
  float* panel;
  size_t first, count, m, group, end;
};

// The two groups' weights of one term, times the tokens of one tile or of two, of one term.
template <bool two>
void multiply_terms() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 5, 6);
  if constexpr (two) {
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
}

template <size_t terms, bool two>
void multiply_group(const Step& step, size_t tile) {
  const LinearCall& call = step.call;
  const size_t width = step.tiles.width, token_stride = width * sizeof(float);
  const size_t term_lanes = call.lanes / terms;
  const float* tokens = step.tiles.packed + tile * call.lanes * width;
  const auto load_weights = [&](size_t block, size_t term) {
    _tile_loadd(4, tile_of<terms>(step.panel, block, term, step.group), kLineBytes);
    _tile_loadd(5, tile_of<terms>(step.panel, block, term, step.group + 1), kLineBytes);
  };
  const auto load_tokens = [&](size_t block, size_t term) {
    const float* address = tokens + (term * term_lanes + (step.first + block) * kTileRows) * width;
    _tile_loadd(6, address, token_stride);
    if constexpr (two) _tile_loadd(7, address + call.lanes * width, token_stride);
  };
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t block = 0; block < step.count; ++block) {
    load_weights(block, 0);
    if constexpr (terms == 2) {
      load_tokens(block, 1);
      multiply_terms<two>();
    }
    load_tokens(block, 0);
    multiply_terms<two>();
    if constexpr (terms == 2) {
      load_weights(block, 1);
      multiply_terms<two>();
    }
  }
  alignas(kLineBytes) float sums[4][kTileRows][kTileRows];
  _tile_stored(0, sums[0], kLineBytes);
  _tile_stored(1, sums[1], kLineBytes);
  _tile_stored(2, sums[2], kLineBytes);
  _tile_stored(3, sums[3], kLineBytes);
  settle_memory();
  for (size_t i = 0; i < (two ? 4 : 2); ++i) {
    const size_t token = (tile + i / 2) * width, m = step.m + i % 2 * kTileRows;
    const size_t count = least(width, call.tokens - token);
    if (step.first == 0) {
      store<true>(call, sums[i], m, step.end, token, count);
    } else {
      store<false>(call, sums[i], m, step.end, token, count);
    }
  }
}

template <size_t terms>
void int8_blocked_product(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                          float* panel) noexcept {
  const size_t blocks = call.depth / kScaleBlock;
  configure(tiles.width);
  for (size_t first = 0; first < blocks || first == 0;
       first += kPanelBlocks<terms>) {  // once even if K is 0: y becomes the bias
    const size_t count = least(kPanelBlocks<terms>, blocks - first);
    pack_rows<terms>(call, begin, end, first, count, panel);
    settle_memory();
    for (size_t tile = 0; tile < tiles.count; tile += 2) {
      for (size_t m = begin; m < end; m += 2 * kTileRows) {
        const Step step{call, tiles, panel, first, count, m, (m - begin) / kTileRows, end};
        if (tile + 1 < tiles.count) {
          multiply_group<terms, true>(step, tile);
        } else {
          multiply_group<terms, false>(step, tile);
        }
      }
    }
  }
  _tile_release();
}

}  // namespace

LinearKernels linear_int8_amx(Activations activations) {
  const bool exact = activations == Activations::exact;
  LinearKernels kernels = linear_int8_vnni(activations);
  kernels.blocked_product = exact ? int8_blocked_product<2> : int8_blocked_product<1>;
  kernels.blocked_format = exact ? TokenFormat::tile_pairs_of_two_terms : TokenFormat::tile_pairs;
  kernels.tile_width = kTileRows;
  return kernels;
}

}  // namespace gptoss

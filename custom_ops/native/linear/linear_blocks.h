// Linear times many tokens, once for the vector widths: for any V, Arithmetic and Weights of
// linear_rows.h.
//
// Included as linear_streams.h.
#pragma once

#include "linear/linear_rows.h"

namespace gptoss {

template <class V, class Arithmetic, class Weights>
struct BlockProducts {
  using Vector = typename V::Vector;

  static constexpr size_t kPanel = 2 * V::kLanes;    // weight rows that a tile multiplies
  static constexpr size_t kPanelAhead = 8 * kPanel;  // of a panel, to the first-level cache
  static constexpr size_t kLineFloats = kLine / sizeof(float);
  // Tokens: so many times two sums, two weights and one token fill all registers but one.
  static constexpr size_t kTileWidth = V::kRegisters == 32 ? 14 : 6;

  // Puts rows [m, m + kPanel) and lanes [lane, lane + count) of the weight into
  // panel[lane][kPanel]; rows from `end` on are zero. Fetches the lanes of the next block, which
  // lie too far apart for the processor's own prefetcher.
  static void pack(const LinearCall& call, size_t m, size_t end, size_t lane, size_t count,
                   float* panel) {
    for (size_t half = 0; half < kPanel; half += V::kLanes) {
      for (size_t at = 0; at < count; at += V::kLanes) {
        const size_t offset = (lane + at) * Weights::kLaneBytes;
        const bool whole = offset + V::kLanes * Weights::kLaneBytes <= call.row_bytes;
        Vector square[V::kLanes];
        for (size_t i = 0; i < V::kLanes; ++i) {
          const size_t row = m + half + i;
          square[i] = V::zero();
          if (row >= end) continue;
          square[i] = whole ? Weights::load(call, row, lane + at)
                            : Weights::load_rest(call, row, lane + at);
          if (offset % kLine != 0) continue;
          __builtin_prefetch(
              call.weight + row * call.row_bytes + offset + kBlockLanes * Weights::kLaneBytes, 0,
              2);
        }
        V::transpose(square);
        for (size_t i = 0; i < V::kLanes && at + i < count; ++i)
          V::store(panel + (at + i) * kPanel + half, square[i]);
      }
    }
  }

  // y[t][0..kPanel) = start + Σ x[lane][t] · panel[lane][0..kPanel) over the lanes, where start is
  // the bias at the first block and what y holds at the later ones. What comes next is fetched
  // meanwhile: the processor's own prefetcher stops at every page, which a tile reaches each
  // seventy lanes.
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

  template <size_t kWidth>
  static void multiply(const Tile& tile) {
    Vector low[kWidth], high[kWidth];
#pragma GCC unroll 14  // these loops are unrolled to keep the sums in registers
    for (size_t t = 0; t < kWidth; ++t) low[t] = high[t] = V::zero();
    for (size_t t = 0; t < tile.tokens; ++t) {
      for (size_t i = 0; i < kPanel; i += kLineFloats)
        __builtin_prefetch(tile.y + t * tile.stride + i, 1);
    }
    const float* x = tile.x;
    const float* panel = tile.panel;
    const float* next = tile.next;
    for (size_t lane = 0; lane < tile.lanes; ++lane, x += kWidth, panel += kPanel) {
      __builtin_prefetch(next, 0, 2);
      next += (kWidth + 1) / 2;
#pragma GCC unroll 2
      for (size_t i = 0; i < kPanel; i += kLineFloats) __builtin_prefetch(panel + kPanelAhead + i);
      const Vector weight_low = V::load(panel), weight_high = V::load(panel + V::kLanes);
#pragma GCC unroll 14
      for (size_t t = 0; t < kWidth; ++t) {
        const Vector token = V::broadcast(x[t]);
        low[t] = Arithmetic::multiply_add(weight_low, token, low[t]);
        high[t] = Arithmetic::multiply_add(weight_high, token, high[t]);
      }
    }
    const size_t rows_high = tile.rows > V::kLanes ? tile.rows - V::kLanes : 0;
#pragma GCC unroll 14
    for (size_t t = 0; t < kWidth; ++t) {
      if (t < tile.tokens) {
        float* y = tile.y + t * tile.stride;
        const float* start = tile.first_block ? tile.bias : y;
        if (start != nullptr) {
          low[t] = V::sum(low[t], V::load_some(start, tile.rows));
          high[t] = V::sum(high[t], V::load_some(start + V::kLanes, rows_high));
        }
        V::store_some(y, low[t], tile.rows);
        V::store_some(y + V::kLanes, high[t], rows_high);
      }
    }
  }

  // The same of a tile `width` tokens wide.
  template <size_t kMost = kTileWidth>
  static void multiply_wide(size_t width, const Tile& tile) {
    if (width == kMost) return multiply<kMost>(tile);
    if constexpr (kMost > 1) multiply_wide<kMost - 1>(width, tile);
  }

  static void product(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                      float* panels) noexcept {
    for (size_t lane = 0; lane < call.lanes || lane == 0;
         lane += kBlockLanes) {  // once even if there are no lanes: y becomes the bias
      const size_t left = call.lanes - lane, lanes = left < kBlockLanes ? left : kBlockLanes;
      for (size_t m = begin; m < end; m += kPanel)
        pack(call, m, end, lane, lanes, panels + (m - begin) * kBlockLanes);
      for (size_t tile = 0; tile < tiles.count; ++tile) {
        const size_t token = tile * tiles.width, tokens = call.tokens - token;
        const bool last = tile + 1 == tiles.count;  // the next block of lanes follows
        const float* next =
            tiles.packed + (last ? lane + lanes : (tile + 1) * call.lanes + lane) * tiles.width;
        for (size_t m = begin; m < end; m += kPanel, next += lanes * (tiles.width + 1) / 2) {
          multiply_wide(tiles.width, {tiles.packed + (tile * call.lanes + lane) * tiles.width,
                                      panels + (m - begin) * kBlockLanes, lanes,
                                      call.bias == nullptr ? nullptr : call.bias + m,
                                      call.y + token * call.rows + m, call.rows,
                                      tokens < tiles.width ? tokens : tiles.width,
                                      end - m < kPanel ? end - m : kPanel, lane == 0, next});
        }
      }
    }
  }
};

template <class V, class Arithmetic, class Weights>
constexpr LinearKernels kernels_of(TokenFormat format) {
  using Blocks = BlockProducts<V, Arithmetic, Weights>;
  return {matrix_vector<V, Arithmetic, Weights>,
          format,
          kFewTokens,
          Blocks::product,
          format,
          Blocks::kTileWidth};
}

// Float32 arithmetic on weights as they are stored.
template <class V>
LinearKernels float_kernels(WeightType type) {
  using Products = FloatProducts<V>;
  constexpr TokenFormat format = TokenFormat::float32;
  switch (type) {
    case WeightType::float32:
      return kernels_of<V, Products, Widened<V, WeightType::float32>>(format);
    case WeightType::float16:
      return kernels_of<V, Products, Widened<V, WeightType::float16>>(format);
    case WeightType::bfloat16:
      return kernels_of<V, Products, Widened<V, WeightType::bfloat16>>(format);
  }
  return {};
}

}  // namespace gptoss

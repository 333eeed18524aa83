// LinearInt8 times several tokens in integers: a panel of weights is turned once, so that a lane
// holds four neighbours of one row, and every token passes it by eight-bit dot products, packed as
// linear_int8_tokens.h says. A block's dot product is exact in int32.
//
// Written once for the vector widths. A V holds:
//   Floats, Integers: vectors of kLanes lanes of 32 bits; kTileWidth: tokens that pass together.
//   kOffset: what offset(weights) adds to them, because one side of a dot product is unsigned.
//   dot(sum, weights, tokens): sum + by lane four offset weights times four values, or two weights
//     times two values where kWords: weights and tokens are words then, of two digits in one.
//   even_words, odd_words: where kWords, the words of every other byte of a lane.
//   write_integers: as linear_int8_tokens.h says.
//   The rest is plain arithmetic; `some` is the lanes from the first on that there are.
// Included by files that are compiled for one level, each with a V of its own in an anonymous
// namespace: so every copy of this code stays in its file.
#pragma once

#include "linear/linear_int8_ahead.h"
#include "linear/linear_int8_tokens.h"
#include "linear/linear_kernels.h"

namespace gptoss {

constexpr size_t kChunkBlocks = 16;  // of a panel: its 18 KiB stay in the first-level cache
constexpr size_t kFewTiles = 3;      // up to which memory is what a kernel waits for

template <class V, size_t digits>
struct Int8Panel {
  using Floats = typename V::Floats;
  using Integers = typename V::Integers;

  static constexpr size_t kGroups = 2;  // vectors of rows that share a token's loads
  static constexpr size_t kRows = kGroups * V::kLanes;

  static constexpr size_t kSteps = V::kWords ? 2 * kQuads : kQuads;
  static_assert(!V::kWords || digits == 2);

  // A block of each row, turned; zero where there is no row.
  struct alignas(kLine) Block {
    unsigned char weights[kSteps][kGroups][V::kLanes * 4];
    float scales[kGroups][V::kLanes];
  };
  static_assert(kChunkBlocks * sizeof(Block) <= kPanelFloats * sizeof(float));

  using Ahead = RowsAhead<V, kRows>;

  // Sums of kRows rows and some tokens. They go on from one panel of a row to the next, so that
  // they do not depend on where panels begin.
  struct Output {
    float* y;  // of the first token and row
    size_t stride, rows, tokens;
    bool first, last;   // of the panels of these rows
    const float* bias;  // of the first row, or null
  };

  template <size_t part_digits, size_t width>
  [[gnu::always_inline]] static const float* add_part(const Block& block, const float* x,
                                                      Floats (&sums)[kGroups][width]) {
    const float *scale = x, *correction = x + width;
    x += kPartHead * width;
    Integers dots[kGroups][width];
#pragma GCC unroll 8  // these loops are unrolled to keep the sums in registers
    for (size_t t = 0; t < width; ++t) {
      const Integers start = part_digits == 1 && !V::kWords ? V::broadcast_integer(correction + t)
                                                            : V::zero_integers();
#pragma GCC unroll 2
      for (size_t g = 0; g < kGroups; ++g) dots[g][t] = start;
    }
#pragma GCC unroll 2
    for (size_t digit = 0; digit < part_digits; ++digit) {
      if (digit > 0) {
#pragma GCC unroll 8
        for (size_t t = 0; t < width; ++t) {
          const Integers taken_back = V::broadcast_integer(correction + t);
#pragma GCC unroll 2
          for (size_t g = 0; g < kGroups; ++g)
            dots[g][t] = V::add(V::shift_8(dots[g][t]), taken_back);
        }
      }
#pragma GCC unroll 2
      for (size_t step = 0; step < kSteps; ++step, x += width) {
        Integers weights[kGroups];
#pragma GCC unroll 2
        for (size_t g = 0; g < kGroups; ++g) weights[g] = V::load(block.weights[step][g]);
#pragma GCC unroll 8
        for (size_t t = 0; t < width; ++t) {
          const Integers token = V::broadcast_integer(x + t);
#pragma GCC unroll 2
          for (size_t g = 0; g < kGroups; ++g) dots[g][t] = V::dot(dots[g][t], weights[g], token);
        }
      }
    }
#pragma GCC unroll 8
    for (size_t t = 0; t < width; ++t) {
      const Floats token_scale = V::broadcast(scale[t]);
#pragma GCC unroll 2
      for (size_t g = 0; g < kGroups; ++g) {
        const Floats both = V::product(V::load(block.scales[g]), token_scale);
        sums[g][t] = V::add_product(sums[g][t], V::to_floats(dots[g][t]), both);
      }
    }
    return x;
  }

  template <size_t width>
  static void multiply(const Block* panel, size_t blocks, const float* x, Ahead& ahead,
                       const Output& out) {
    Floats sums[kGroups][width];
#pragma GCC unroll 2
    for (size_t g = 0; g < kGroups; ++g) {
#pragma GCC unroll 8
      for (size_t t = 0; t < width; ++t) {
        const bool begun = !out.first && t < out.tokens && g * V::kLanes < out.rows;
        const size_t first = g * V::kLanes;
        sums[g][t] =
            begun ? V::load_some(out.y + t * out.stride + first, out.rows - first) : V::zero();
      }
    }
    for (size_t block = 0; block < blocks; ++block) {
      ahead.fetch();
      x = add_part < digits == 1 || V::kWords ? 1 : 2 > (panel[block], x, sums);
      if constexpr (digits == 3) x = add_part<1>(panel[block], x, sums);
    }
#pragma GCC unroll 2
    for (size_t g = 0; g < kGroups; ++g) {
      const size_t first = g * V::kLanes;
      if (first >= out.rows) break;
#pragma GCC unroll 8
      for (size_t t = 0; t < width; ++t) {
        if (t >= out.tokens) break;
        Floats sum = sums[g][t];
        if (out.last && out.bias != nullptr)
          sum = V::sum(sum, V::load_some(out.bias + first, out.rows - first));
        V::store_some(out.y + t * out.stride + first, sum, out.rows - first);
      }
    }
  }

  using Multiply = void (*)(const Block*, size_t, const float*, Ahead&, const Output&);

  // By width; those beyond kTileWidth are never called.
  static Multiply multiply_of(size_t width) {
    constexpr size_t most = V::kTileWidth;
    constexpr Multiply kernels[] = {
        multiply<1>,
        multiply < most < 2 ? most : 2 >,
        multiply < most < 3 ? most : 3 >,
        multiply < most < 4 ? most : 4 >
        , multiply < most < 5 ? most : 5 >, multiply < most < 6 ? most : 6 >,
    };
    static_assert(most <= sizeof kernels / sizeof *kernels);
    return kernels[width - 1];
  }

  using RowAddresses = const unsigned char * [V::kLanes];

  // Turns up to V::kLanes lanes of four bytes of each row, `offset` bytes into it: put(i, x) gets
  // the rows' i-th. Whole lines of a row are read at once, since rows may share a set of the cache.
  template <class Put>
  [[gnu::always_inline]] static void turn(const RowAddresses& rows, size_t offset, size_t lanes,
                                          const Put& put) {
    Floats square[V::kLanes];
#pragma GCC unroll 16
    for (size_t i = 0; i < V::kLanes; ++i) {
      const void* address = rows[i] + offset;  // which may be odd
      square[i] = lanes >= V::kLanes ? V::load(address) : V::load_some(address, lanes);
    }
    V::transpose(square);
#pragma GCC unroll 16
    for (size_t i = 0; i < V::kLanes; ++i) {
      if (i < lanes) put(i, square[i]);
    }
  }

  // Four weights of each row, in a lane.
  static void put(Floats weights, size_t quad, size_t group, Block& block) {
    if constexpr (V::kWords) {
      V::store(block.weights[2 * quad][group], V::even_words(weights));
      V::store(block.weights[2 * quad + 1][group], V::odd_words(weights));
    } else {
      V::store(block.weights[quad][group], V::offset(weights));
    }
  }

  static void turn_weights(const RowAddresses& rows, size_t count, size_t group, Ahead& ahead,
                           Block* panel) {
    constexpr size_t turned = V::kLanes / kQuads;  // blocks
    for (size_t block = 0; block < count; block += turned) {
      for (size_t i = 0; i < turned; ++i) ahead.fetch();
      turn(rows, block * kScaleBlock, (count - block) * kQuads,
           [&](size_t i, Floats quad) { put(quad, i % kQuads, group, panel[block + i / kQuads]); });
    }
  }

  static void turn_scales(const RowAddresses& rows, size_t count, size_t group, Block* panel) {
    for (size_t block = 0; block < count; block += V::kLanes) {
      turn(rows, block * sizeof(float), count - block,
           [&](size_t i, Floats scales) { V::store(panel[block + i].scales[group], scales); });
    }
  }

  // Turns blocks [first, first + count) of rows [m, m + kRows). A row from `end` on is a copy of
  // the last one, or what was here before; nobody looks at its sums.
  static void pack(const LinearCall& call, size_t m, size_t end, size_t first, size_t count,
                   Ahead& ahead, Block* panel) {
    const size_t scale_bytes = call.depth / kScaleBlock * sizeof(float);
    for (size_t group = 0; group < kGroups && m + group * V::kLanes < end; ++group) {
      RowAddresses weights, scales;
      for (size_t i = 0; i < V::kLanes; ++i) {
        const size_t wanted = m + group * V::kLanes + i, row = wanted < end ? wanted : end - 1;
        weights[i] = call.weight + row * call.row_bytes + first * kScaleBlock;
        scales[i] = call.scales + row * scale_bytes + first * sizeof(float);
      }
      turn_scales(scales, count, group, panel);
      turn_weights(weights, count, group, ahead, panel);
    }
  }

  static void product(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                      float* memory) noexcept {
    const size_t blocks = call.depth / kScaleBlock, scale_bytes = blocks * sizeof(float);
    auto* panel = reinterpret_cast<Block*>(memory);
    const Multiply kernel = multiply_of(tiles.width);
    // Few tokens: rows as long as the second-level cache holds, since memory is read along them.
    constexpr size_t kMostBlocks = kPanelFloats * sizeof(float) / sizeof(Block);
    const size_t most = tiles.count > kFewTiles ? kChunkBlocks : kMostBlocks;
    const auto chunk = [&](size_t first) { return blocks - first < most ? blocks - first : most; };
    for (size_t m = begin; m < end; m += kRows) {
      for (size_t first = 0; first < blocks || first == 0;
           first += most) {  // once even if K is 0: y becomes the bias
        const size_t count = chunk(first);
        const bool last = first + most >= blocks;
        const size_t next_row = last ? m + kRows : m, next = last ? 0 : first + most;
        const size_t bytes = chunk(next) * kScaleBlock;
        const size_t lines = Ahead::kStreamRows * ((bytes + kLine - 1) / kLine);
        const size_t passes = kGroups + (tiles.count < kFewTiles ? tiles.count : kFewTiles);
        Ahead ahead{call.weight + next_row * call.row_bytes + next * kScaleBlock,
                    call.scales + next_row * scale_bytes + next * sizeof(float),
                    call.row_bytes,
                    scale_bytes,
                    bytes,
                    next_row + kRows > call.rows || count == 0 ? 0 : lines,
                    passes * count};
        pack(call, m, end, first, count, ahead, panel);
        for (size_t tile = 0; tile < tiles.count; ++tile) {
          if (tile == kFewTiles) ahead.lines = 0;
          const size_t token = tile * tiles.width, left = call.tokens - token;
          float* y = call.y + token * call.rows + m;
          const float* bias = call.bias == nullptr ? nullptr : call.bias + m;
          kernel(panel, count,
                 tiles.packed + (tile * call.lanes + first * kBlockOfToken<digits>)*tiles.width,
                 ahead,
                 {y, call.rows, end - m, left < tiles.width ? left : tiles.width, first == 0, last,
                  bias});
        }
      }
    }
  }
};

template <class V, size_t digits>
void use_panels_of(LinearKernels& kernels) {
  kernels.blocked_product = Int8Panel<V, digits>::product;
  kernels.blocked_format = TokenFormat::packed;
  kernels.tile_width = V::kTileWidth;
  kernels.blocked_packing = {Int8Tokens<V, digits>::lanes, Int8Tokens<V, digits>::pack};
}

template <class V>
void use_panels(Activations activations, LinearKernels& kernels) {
  switch (activations) {
    case Activations::bf16:
      return use_panels_of<V, 2>(kernels);
    case Activations::int8:
      return use_panels_of<V, 1>(kernels);
    default:
      return use_panels_of<V, 3>(kernels);
  }
}

}  // namespace gptoss

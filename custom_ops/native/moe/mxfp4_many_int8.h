// MXFP4 times many tokens of 8 bits, for AVX-512 without VNNI.
//
// Lane r of a register has four weights of row r, doubled, and with an offset because one side of
// the instruction is unsigned. It adds two products of a lane in 16 bits, and a block's eight such
// sums add up in 16 bits, too: they may wrap, but what remains when the offset is taken back,
// 16 · 12 · 127 at most, fits. `V` as in mxfp4_many_float.h, and for bytes
//   Ints, kByteTokens                   tokens of a tile
//   load, store, broadcast              of bytes, and of four in each lane
//   offset_levels                       what the low four bits of each byte stand for
//   add_pairs                           sum + two products of each lane's halves, in 16 bits
//   total                               both halves of a lane, as a float
//
// Included by files that are compiled for one level, as mxfp4_many.h.
#pragma once

#include <immintrin.h>

#include "moe/mxfp4_levels.h"
#include "moe/mxfp4_many.h"

namespace gptoss {

template <class V>
struct Int8Tile {
  using Vector = typename V::Vector;
  using Ints = typename V::Ints;

  static constexpr size_t kTokens = V::kByteTokens, kVectors = 2;
  static constexpr size_t kRows = kVectors * V::kLanes;
  static constexpr size_t kBlocks = 16;
  static constexpr size_t kSteps = 8;  // four low nibbles, or four high ones, each

  struct TokenBlock {
    int8_t values[kSteps][kTokens][4];
    int16_t correction[kTokens]
                      [2];  // by half of a lane −12 · Σ values, which takes the offset back
    float scale[kTokens];   // half of it: levels are doubled
  };

  struct alignas(64) PanelBlock {
    uint8_t weights[kSteps][kVectors][sizeof(Ints)];
    float scales[kVectors][V::kLanes];
  };

  static void pack(const float* x, size_t token, TokenBlock& block) {
    constexpr float kLargest = 127, kSmallest = 0x1p-100f;  // as round_activations has them
    float largest = 0, sum = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      const float magnitude = x[i] < 0 ? -x[i] : x[i];
      if (magnitude > largest) largest = magnitude;
      sum += magnitude - magnitude;  // NaN where one is NaN or infinite
    }
    const bool usable = sum == 0 && largest >= kSmallest;
    const float inverse = usable ? kLargest / largest : 0;
    int halves[2] = {0, 0};
    for (size_t i = 0; i < kBlock; ++i) {
      const int integer = usable ? _mm_cvtss_si32(_mm_set_ss(x[i] * inverse)) : 0;
      const size_t place = i / 2;  // among the values that meet low nibbles, or high ones
      block.values[i % 2 * (kSteps / 2) + place / 4][token][place % 4] =
          static_cast<int8_t>(integer);
      halves[place % 4 / 2] += integer;
    }
    for (size_t half = 0; half < 2; ++half)
      block.correction[token][half] = static_cast<int16_t>(-kOffset * halves[half]);
    block.scale[token] = sum != 0 ? sum : usable ? largest / kLargest * 0.5f : 0;
  }

  static constexpr bool kDecodesAhead = false;
  using Piece = PieceOfRows<V, kVectors>;

  static void decode(const Piece& piece, size_t block, PanelBlock& decoded) {
    for (size_t v = 0; v < kVectors; ++v) {
      const auto across = V::across(piece.bytes[v] + block * kBlockBytes, piece.stride);
      for (size_t i = 0; i < kSteps / 2; ++i) {
        V::store(decoded.weights[i][v], V::offset_levels(across.dwords[i]));
        V::store(decoded.weights[kSteps / 2 + i][v],
                 V::offset_levels(V::next_nibbles(across.dwords[i])));
      }
      V::store(decoded.scales[v], V::factors(piece.scales[v], block));
    }
  }

  template <size_t tokens>
  static void multiply(const Piece&, const Sums<Int8Tile>& of) {
    // Sums of floats stay in `out`: registers have the integers.
    for (size_t block = 0; block < of.blocks; ++block) {
      Ints parts[tokens][kVectors];
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t v = 0; v < kVectors; ++v) parts[t][v] = broadcast(of.x[block].correction[t]);
      }
      for (size_t step = 0; step < kSteps; ++step) {
        Ints weights[kVectors];
        for (size_t v = 0; v < kVectors; ++v)
          weights[v] = V::load(of.panel[block].weights[step][v]);
        for (size_t t = 0; t < tokens; ++t) {
          const Ints values = broadcast(of.x[block].values[step][t]);
          for (size_t v = 0; v < kVectors; ++v)
            parts[t][v] = V::add_pairs(parts[t][v], weights[v], values);
        }
      }
      for (size_t t = 0; t < tokens; ++t) {
        const Vector scale = V::broadcast(of.x[block].scale[t]);
        for (size_t v = 0; v < kVectors; ++v) {
          float* sums = of.out + t * of.stride + v * V::kLanes;
          const Vector sum = of.add || block > 0 ? V::load(sums) : V::zero();
          const Vector partial = V::product(V::total(parts[t][v]), scale);
          V::store(sums, V::add_product(sum, partial, V::load(of.panel[block].scales[v])));
        }
      }
    }
  }

  template <class Four>
  static Ints broadcast(const Four& four) {
    int32_t bits;
    static_assert(sizeof four == sizeof bits);
    std::memcpy(&bits, &four, sizeof bits);
    return V::broadcast(bits);
  }
};

}  // namespace gptoss

// MXFP4 times many tokens in float32, for AVX-512 without VNNI: exact weights under every scale
// byte.
//
// Lane r of a register has a weight of row r. `V` names the instructions of a level:
//   kLanes, kFloatTokens                tokens of a tile
//   zero, broadcast, load, store, sum, product, add_product (sum + a · b)
//   across                              sixteen bytes of kLanes rows: lane r of register i has
//                                       bytes 4i … 4i + 3 of row r
//   Scales, scales, factors             scale bytes of up to sixteen blocks of kLanes rows, and
//                                       what those of one block stand for
//   levels                              what the low four bits of each lane stand for
//   next_nibbles                        lanes, four bits to the right
//
// Included by files that are compiled for one level, as mxfp4_many.h.
#pragma once

#include "moe/mxfp4_many.h"

namespace gptoss {

template <class V, Activations mode>
struct FloatTile {
  using Vector = typename V::Vector;

  static constexpr size_t kTokens = V::kFloatTokens, kVectors = 2;
  static constexpr size_t kRows = kVectors * V::kLanes;
  static constexpr size_t kBlocks = 4;  // 16 kB of decoded weights

  struct TokenBlock {
    float values[kBlock][kTokens];
  };

  struct alignas(64) PanelBlock {
    float weights[kBlock][kVectors][V::kLanes];
  };

  static void pack(const float* x, size_t token, TokenBlock& block) {
    float rounded[kBlock];
    round_activations(mode, x, kBlock, rounded);
    for (size_t i = 0; i < kBlock; ++i) block.values[i][token] = rounded[i];
  }

  static constexpr bool kDecodesAhead = false;
  using Piece = PieceOfRows<V, kVectors>;

  static void decode(const Piece& piece, size_t block, PanelBlock& decoded) {
    for (size_t v = 0; v < kVectors; ++v) {
      const auto across = V::across(piece.bytes[v] + block * kBlockBytes, piece.stride);
      const Vector scale = V::factors(piece.scales[v], block);
      for (size_t i = 0; i < kBlock / 8; ++i) {
        auto nibbles = across.dwords[i];
        for (size_t k = 0; k < 8; ++k) {
          V::store(decoded.weights[8 * i + k][v], V::product(V::levels(nibbles), scale));
          nibbles = V::next_nibbles(nibbles);
        }
      }
    }
  }

  template <size_t tokens>
  static void multiply(const Piece&, const Sums<FloatTile>& of) {
    Vector sums[tokens][kVectors];
#pragma GCC unroll 12  // these loops are unrolled to keep the sums in registers
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) sums[t][v] = V::zero();
    }
    for (size_t block = 0; block < of.blocks; ++block) {
      for (size_t k = 0; k < kBlock; ++k) {
        Vector weights[kVectors];
#pragma GCC unroll 2
        for (size_t v = 0; v < kVectors; ++v) weights[v] = V::load(of.panel[block].weights[k][v]);
#pragma GCC unroll 12
        for (size_t t = 0; t < tokens; ++t) {
          const Vector value = V::broadcast(of.x[block].values[k][t]);
#pragma GCC unroll 2
          for (size_t v = 0; v < kVectors; ++v)
            sums[t][v] = V::add_product(sums[t][v], weights[v], value);
        }
      }
    }
#pragma GCC unroll 12
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) {
        float* place = of.out + t * of.stride + v * V::kLanes;
        V::store(place, of.add ? V::sum(V::load(place), sums[t][v]) : sums[t][v]);
      }
    }
  }
};

// Of the modes whose activations have more than 8 bits.
template <class V>
const Mxfp4Kernel& float_kernel(Activations activations) {
  if (activations == Activations::bf16) return Mxfp4Many<FloatTile<V, Activations::bf16>>::kKernel;
  return Mxfp4Many<FloatTile<V, Activations::exact>>::kKernel;
}

}  // namespace gptoss

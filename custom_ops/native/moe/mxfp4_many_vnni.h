// MXFP4 times many tokens with AVX-512 VNNI, for any Dots (mxfp4_many_dots.h): how a block's
// integers are multiplied.
//
// Lane r of a register belongs to row r. A block's sum of integers is exact in int32. It is worth
// the weights' scale, a power of two, times the token's: adding the exponent of one to the bits of
// the other gives their product on a port that dot products leave idle. A panel or a block of
// tokens where that would leave the range of exponents takes a slower way.
//
// Included by files that are compiled with AVX-512 alone, as mxfp4_transpose.h.
#pragma once

#include "machine/digits.h"
#include "moe/mxfp4_many_dots.h"
#include "moe/mxfp4_many_piece.h"

namespace gptoss {
namespace {

constexpr int32_t kBias = 127 << 23;  // the exponent of 1, in place

// Exponents of weights and tokens whose products have one, too.
constexpr uint8_t kLowest = 64, kHighest = 191;
bool is_plain_token(float scale) { return scale >= 0x1p-63f && scale < 0x1p64f; }
__mmask16 plain_weights(__m512i exponents) {
  return _mm512_cmple_epu32_mask(_mm512_sub_epi32(exponents, _mm512_set1_epi32(kLowest << 23)),
                                 _mm512_set1_epi32((kHighest - kLowest) << 23));
}

template <class Dots>
struct VnniTile {
  static constexpr size_t kTokens = kDotTokens, kVectors = kPanelVectors;
  static constexpr size_t kRows = kPanelRows;
  static constexpr size_t kBlocks = Dots::kBlocks;

  struct TokenBlock {
    typename Dots::Values values;
    int32_t scales[kTokens];  // bits of half the scale, because levels are doubled, less kBias
    uint8_t unusual[8];       // by token, where the bits cannot be used so
  };

  struct alignas(64) PanelBlock {
    typename Dots::Weights weights;
    int32_t exponents[kVectors][kLanes];  // scale bytes, where a float has its exponent
  };

  static constexpr bool kDecodesAhead = true;

  using Piece = PanelPiece<kLowest, kHighest>;

  static void pack(const float* x, size_t token, TokenBlock& block) {
    const auto [first, second, scale] = to_integers<Dots::kRounded>(x, Dots::kLargest);
    Dots::pack(first, second, token, block.values);
    const float half = scale == 0 ? 1.0f : scale * 0.5f;  // of zeros, any
    std::memcpy(&block.scales[token], &half, sizeof half);
    block.scales[token] -= kBias;
    block.unusual[token] = !is_plain_token(half);
  }

  static void decode(const Piece& piece, size_t block, PanelBlock& decoded) {
    Nibbles nibbles;
    begin_decoding(piece, block, nibbles, decoded);
    for (size_t step = 0; step < Dots::kSteps; ++step) Dots::decode(nibbles, step, decoded.weights);
  }

  static void begin_decoding(const Piece& piece, size_t block, Nibbles& nibbles,
                             PanelBlock& decoded) {
    piece.load(block, nibbles);
    for (size_t v = 0; v < kVectors; ++v)
      _mm512_store_si512(decoded.exponents[v], exponents(piece.scales[v], block));
  }

  template <size_t tokens>
  static void multiply(const Piece& piece, const Sums<VnniTile>& of) {
    if (piece.unusual || any_unusual<tokens>(of.x, of.blocks)) return multiply_unusual(of, tokens);
    add_blocks<tokens>(of, [&](size_t, const auto& dot) { dot([](size_t) {}); });
  }

  // Dot products leave ports and most of the processor's time at its front to decoding.
  static void multiply_ahead(const Piece& piece, const Sums<VnniTile>& of, const Piece& next,
                             size_t count, PanelBlock* panel) {
    if (piece.unusual || any_unusual<kTokens>(of.x, of.blocks)) {
      for (size_t block = 0; block < count; ++block) decode(next, block, panel[block]);
      return multiply_unusual(of, kTokens);
    }
    add_blocks<kTokens>(of, [&](size_t block, const auto& dot) {
      const size_t other = block < count ? block : count - 1;  // a short one's last again
      Nibbles nibbles;
      begin_decoding(next, other, nibbles, panel[other]);
      dot([&](size_t step) { Dots::decode(nibbles, step, panel[other].weights); });
    });
  }

  // with_block(block, dot) calls dot(after) once.
  template <size_t tokens, class WithBlock>
  [[gnu::always_inline]] static void add_blocks(const Sums<VnniTile>& of,
                                                const WithBlock& with_block) {
    __m512 sums[tokens][kVectors];
#pragma GCC unroll 6  // these loops are unrolled to keep the sums in registers
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) {
        sums[t][v] =
            of.add ? _mm512_loadu_ps(of.out + t * of.stride + v * kLanes) : _mm512_setzero_ps();
      }
    }
    for (size_t block = 0; block < of.blocks; ++block) {
      const PanelBlock& panel = of.panel[block];
      const TokenBlock& x = of.x[block];
      ask_soon(of.next + block);
      __m512i parts[tokens][kVectors];
      with_block(block, [&](const auto& after) {
        Dots::template dot<tokens>(panel.weights, x.values, parts, after);
      });
#pragma GCC unroll 6
      for (size_t t = 0; t < tokens; ++t) {
        const __m512i scale = _mm512_set1_epi32(x.scales[t]);
#pragma GCC unroll 2
        for (size_t v = 0; v < kVectors; ++v) {
          const __m512i product = _mm512_add_epi32(scale, _mm512_load_si512(panel.exponents[v]));
          sums[t][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(parts[t][v]),
                                       _mm512_castsi512_ps(product), sums[t][v]);
        }
      }
    }
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v)
        _mm512_storeu_ps(of.out + t * of.stride + v * kLanes, sums[t][v]);
    }
  }

  template <size_t tokens>
  static bool any_unusual(const TokenBlock* x, size_t blocks) {
    uint64_t any = 0;
    for (size_t block = 0; block < blocks; ++block) {
      uint64_t flags;
      std::memcpy(&flags, x[block].unusual, sizeof flags);
      any |= flags;
    }
    return (any & (~uint64_t{0} >> (64 - 8 * tokens))) != 0;
  }

  // Where a product of scales is no normal number, the block's sum is multiplied by one after the
  // other; elsewhere it gets the same bits as above.
  [[gnu::noinline]] static void multiply_unusual(const Sums<VnniTile>& of, size_t tokens) {
    for (size_t block = 0; block < of.blocks; ++block) {
      const PanelBlock& panel = of.panel[block];
      const TokenBlock& x = of.x[block];
      __m512i parts[kTokens][kVectors];  // of all: those behind the last count for nothing
      Dots::template dot<kTokens>(panel.weights, x.values, parts, [](size_t) {});
      for (size_t t = 0; t < tokens; ++t) {
        const __m512i bits = _mm512_set1_epi32(x.scales[t]);
        const __m512 scale = _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(kBias)));
        for (size_t v = 0; v < kVectors; ++v) {
          float* place = of.out + t * of.stride + v * kLanes;
          const __m512 sum = of.add || block > 0 ? _mm512_loadu_ps(place) : _mm512_setzero_ps();
          const __m512 part = _mm512_cvtepi32_ps(parts[t][v]);
          const __m512i weights = _mm512_load_si512(panel.exponents[v]);
          const __m512 plain =
              _mm512_fmadd_ps(part, _mm512_castsi512_ps(_mm512_add_epi32(bits, weights)), sum);
          const __m512 other = _mm512_fmadd_ps(_mm512_mul_ps(part, scale), factors(weights), sum);
          const __mmask16 usual = x.unusual[t] ? __mmask16{0} : plain_weights(weights);
          _mm512_storeu_ps(place, _mm512_mask_mov_ps(other, usual, plain));
        }
      }
    }
  }
};

}  // namespace
}  // namespace gptoss

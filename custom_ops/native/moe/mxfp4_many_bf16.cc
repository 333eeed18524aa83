// MXFP4 times many tokens rounded to bfloat16, with the dot products of AVX-512 BF16.
//
// A weight, its scale included, is exact in bfloat16, and so no sum of a block meets a scale. The
// instruction takes numbers below 2^-126 for zero: a piece whose products could be so small, or
// infinite, is multiplied in float32.
#include "moe/mxfp4_many_dots.h"

namespace gptoss {
namespace {

// Bits of the levels in bfloat16, twice, since the permutation looks at five bits.
constexpr uint16_t kHalf = 0x3f00, kSign = 0x8000;  // ½, and the sign
alignas(64) constexpr uint16_t kLevelBits[32] = {0,
                                                 kHalf,
                                                 0x3f80,
                                                 0x3fc0,
                                                 0x4000,
                                                 0x4040,
                                                 0x4080,
                                                 0x40c0,
                                                 kSign,
                                                 kSign | kHalf,
                                                 kSign | 0x3f80,
                                                 kSign | 0x3fc0,
                                                 kSign | 0x4000,
                                                 kSign | 0x4040,
                                                 kSign | 0x4080,
                                                 kSign | 0x40c0,
                                                 0,
                                                 kHalf,
                                                 0x3f80,
                                                 0x3fc0,
                                                 0x4000,
                                                 0x4040,
                                                 0x4080,
                                                 0x40c0,
                                                 kSign,
                                                 kSign | kHalf,
                                                 kSign | 0x3f80,
                                                 kSign | 0x3fc0,
                                                 kSign | 0x4000,
                                                 kSign | 0x4040,
                                                 kSign | 0x4080,
                                                 kSign | 0x40c0};

__m512bh pairs(__m512i bits) {
  __m512bh result;
  __builtin_memcpy(&result, &bits, sizeof result);  // compilers differ on how to cast
  return result;
}

struct Bf16Tile {
  static constexpr size_t kTokens = kDotTokens, kVectors = kPanelVectors;
  static constexpr size_t kRows = kPanelRows;
  static constexpr size_t kBlocks = 8;  // 16 kB of decoded weights

  struct TokenBlock {
    uint16_t words[kWordSteps][kTokens][2];
  };

  struct alignas(64) PanelBlock {
    uint8_t words[kWordSteps][kVectors][64];
    float factors[kVectors][kLanes];  // of a piece with unusual scales, whose words are levels
  };

  using Piece = PanelPiece<32, 222>;

  static void pack(const float* x, size_t token, TokenBlock& block) {
    const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + kLanes), _mm512_loadu_ps(x));
    __m512i words;
    __builtin_memcpy(&words, &rounded, sizeof words);
    pack_words(words, token, block.words);
  }

  static constexpr bool kDecodesAhead = true;

  static void decode(const Piece& piece, size_t block, PanelBlock& decoded) {
    const Decoding decoding(piece, block, decoded);
    for (size_t step = 0; step < kWordSteps; ++step) decoding(step);
  }

  struct Decoding {
    Decoding(const Piece& piece, size_t block, PanelBlock& decoded) : words(decoded.words) {
      piece.load(block, nibbles);
      for (size_t v = 0; v < kVectors; ++v) {
        const __m512i scales = exponents(piece.scales[v], block);
        added[v] = _mm512_setzero_si512();
        if (piece.unusual) {
          _mm512_store_ps(decoded.factors[v], factors(scales));
        } else {
          const __m512i upper = _mm512_sub_epi32(scales, _mm512_set1_epi32(127 << 23));
          added[v] = _mm512_or_si512(upper, _mm512_srli_epi32(upper, 16));
        }
      }
    }

    // A scale adds to the exponent of every level but zero.
    void operator()(size_t step) const {
      const __m512i table = _mm512_load_si512(kLevelBits);
      const auto scaled = [&](__m512i levels, __m512i some) {
        const __mmask32 nonzero = _mm512_test_epi16_mask(some, _mm512_set1_epi16(7));
        return _mm512_maskz_add_epi16(nonzero, levels, added[step / 8]);
      };
      store_word_step(nibbles, table, step, words, scaled);
    }

    Nibbles nibbles;
    __m512i added[kVectors];
    uint8_t (&words)[kWordSteps][kVectors][64];
  };

  template <size_t tokens>
  static void multiply(const Piece& piece, const Sums<Bf16Tile>& of) {
    if (piece.unusual) return multiply_unusual(of, tokens);
    add_blocks<tokens>(of, [](size_t, const auto& dot) { dot([](size_t) {}); });
  }

  static void multiply_ahead(const Piece& piece, const Sums<Bf16Tile>& of, const Piece& next,
                             size_t count, PanelBlock* panel) {
    if (piece.unusual) {
      for (size_t block = 0; block < count; ++block) decode(next, block, panel[block]);
      return multiply_unusual(of, kTokens);
    }
    add_blocks<kTokens>(of, [&](size_t block, const auto& dot) {
      const size_t other = block < count ? block : count - 1;  // a short one's last again
      dot(Decoding(next, other, panel[other]));
    });
  }

  // with_block(block, dot) calls dot(after) once.
  template <size_t tokens, class WithBlock>
  [[gnu::always_inline]] static void add_blocks(const Sums<Bf16Tile>& of,
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
      ask_soon(of.next + block);
      with_block(block, [&](const auto& after) {
        add_steps(
            of.panel[block].words, of.x[block].words, sums,
            [](__m512 sum, __m512i rows, __m512i some) {
              return _mm512_dpbf16_ps(sum, pairs(rows), pairs(some));
            },
            after);
      });
    }
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v)
        _mm512_storeu_ps(of.out + t * of.stride + v * kLanes, sums[t][v]);
    }
  }

  [[gnu::noinline]] static void multiply_unusual(const Sums<Bf16Tile>& of, size_t tokens) {
    for (size_t block = 0; block < of.blocks; ++block) {
      const PanelBlock& panel = of.panel[block];
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t v = 0; v < kVectors; ++v) {
          __m512 part = _mm512_setzero_ps();
          for (size_t step = 0; step < kWordSteps; ++step) {
            const __m512i rows = _mm512_load_si512(panel.words[step][v]);
            const __m512i some = broadcast(of.x[block].words[step][t]);
            part = _mm512_fmadd_ps(first_of(rows), first_of(some), part);
            part = _mm512_fmadd_ps(second_of(rows), second_of(some), part);
          }
          float* place = of.out + t * of.stride + v * kLanes;
          const __m512 sum = of.add || block > 0 ? _mm512_loadu_ps(place) : _mm512_setzero_ps();
          _mm512_storeu_ps(place, _mm512_fmadd_ps(part, _mm512_load_ps(panel.factors[v]), sum));
        }
      }
    }
  }

  static __m512 first_of(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  }
  static __m512 second_of(__m512i pairs) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
  }
};

}  // namespace

const Mxfp4Kernel& mxfp4_many_bf16() { return Mxfp4Many<Bf16Tile>::kKernel; }

}  // namespace gptoss

// How a block of integers meets a block of doubled levels, 32 products to a sum, for
// mxfp4_many_vnni.h.
//
//   static constexpr size_t kBlocks;   // of a piece: some 18 kB of decoded weights
//   static constexpr bool kRounded;    // values are rounded to bfloat16 first
//   static constexpr float kLargest;   // the integer of a block's greatest value
//   struct Values;                     // of kDotTokens tokens
//   struct Weights;                    // of kPanelVectors registers of rows
//   static void pack(__m512i first, __m512i second, size_t token, Values& values);
//   static constexpr size_t kSteps;    // in which a block is multiplied, and decoded
//   static void decode(const Nibbles& nibbles, size_t step, Weights& weights);
//   template <size_t tokens, class After>  // after(step) each
//   static void dot(const Weights&, const Values&, Parts<tokens>& parts, const After& after);
//
// Lane r of a register has weights of row r, and one instruction adds their products with as many
// values of a token.
//
// Included by files that are compiled with AVX-512 alone, as mxfp4_transpose.h.
#pragma once

#include "moe/mxfp4_levels.h"
#include "moe/mxfp4_nibbles.h"
#include "moe/mxfp4_many_piece.h"

namespace gptoss {
namespace {

constexpr size_t kDotTokens = 6;  // and two registers of rows: 12 sums of each kind in 32
constexpr size_t kByteSteps = kBlock / 4, kWordSteps = kBlock / 2;

template <size_t tokens>
using Parts = __m512i[tokens][kPanelVectors];

// Four bytes or two words, in every lane.
__m512i broadcast(const void* four) {
  int32_t bits;
  std::memcpy(&bits, four, sizeof bits);
  return _mm512_set1_epi32(bits);
}

// parts += dot products of the steps, `multiply(sum, weights, values)` each, and after(step).
template <size_t steps, size_t tokens, class Value, class Part, class Multiply, class After>
void add_steps(const uint8_t (&weights)[steps][kPanelVectors][64], const Value& values,
               Part (&parts)[tokens][kPanelVectors], const Multiply& multiply, const After& after) {
#pragma GCC unroll 16  // these loops are unrolled to keep the sums in registers
  for (size_t step = 0; step < steps; ++step) {
    __m512i rows[kPanelVectors];
#pragma GCC unroll 2
    for (size_t v = 0; v < kPanelVectors; ++v) rows[v] = _mm512_load_si512(weights[step][v]);
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
      const __m512i some = broadcast(values[step][t]);
#pragma GCC unroll 2
      for (size_t v = 0; v < kPanelVectors; ++v) parts[t][v] = multiply(parts[t][v], rows[v], some);
    }
    after(step);
  }
}

// Panels are decoded in steps, so that steps of one block may stand between those that multiply
// another. A step of bytes: four values, even ones of eight in bytes[0 … 3] and odd ones in the
// others, from the low nibbles of a register's bytes and the high ones.
void store_byte_step(const Nibbles& nibbles, __m512i table, size_t step,
                     uint8_t (&bytes)[kByteSteps][kPanelVectors][64]) {
  const size_t v = step / 4, i = step % 4;
  const __m512i low = _mm512_set1_epi8(15);
  const __m512i some = nibbles[v].dwords[i], others = _mm512_srli_epi16(some, 4);
  _mm512_store_si512(bytes[i][v], _mm512_shuffle_epi8(table, _mm512_and_si512(some, low)));
  _mm512_store_si512(bytes[4 + i][v], _mm512_shuffle_epi8(table, _mm512_and_si512(others, low)));
}

// A step of words, in registers whose lanes have eight nibbles of a row, 0 … 3 in one word and
// 4 … 7 in the other: word w of register 4i + k is nibble 4w + k of dword i. `finish` takes what
// the table says, and a register whose words begin with the nibbles.
template <class Finish>
void store_word_step(const Nibbles& nibbles, __m512i table, size_t step,
                     uint8_t (&words)[kWordSteps][kPanelVectors][64], const Finish& finish) {
  const size_t v = step / 8, i = step / 2 % 4, k = step % 2 * 2;
  const __m512i some = _mm512_srli_epi16(nibbles[v].dwords[i], static_cast<unsigned>(4 * k));
  const __m512i next = _mm512_srli_epi16(some, 4);
  // The permutation looks at five bits of a word, and the table holds every level twice.
  _mm512_store_si512(words[4 * i + k][v], finish(_mm512_permutexvar_epi16(some, table), some));
  _mm512_store_si512(words[4 * i + k + 1][v], finish(_mm512_permutexvar_epi16(next, table), next));
}

// The low bytes of a token's integers, in that order.
void pack_bytes(__m512i first, __m512i second, size_t token,
                uint8_t (&bytes)[kByteSteps][kDotTokens][4]) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (size_t half = 0; half < 2; ++half) {
    const __m512i some = _mm512_permutex2var_epi32(first, half == 0 ? even : odd, second);
    alignas(16) uint8_t low[kBlock / 2];
    _mm_store_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(some));
    for (size_t i = 0; i < 4; ++i) std::memcpy(bytes[half * 4 + i][token], low + 4 * i, 4);
  }
}

// The doubled levels in each quarter of a register.
__m512i signed_levels() { return _mm512_sub_epi8(level_table(), _mm512_set1_epi8(kOffset)); }

// A token's 32 words, in that order.
void pack_words(__m512i values, size_t token, uint16_t (&words)[kWordSteps][kDotTokens][2]) {
  alignas(64) uint16_t ordered[kBlock];
  _mm512_store_si512(ordered, values);
  for (size_t step = 0; step < kWordSteps; ++step) {
    const size_t value = step / 4 * 8 + step % 4;
    words[step][token][0] = ordered[value];
    words[step][token][1] = ordered[value + 4];
  }
}

// The lower 16 bits of 32 integers.
__m512i words_of(__m512i first, __m512i second) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(first)),
                            _mm512_cvtepi32_epi16(second), 1);
}

void store_word_step(const Nibbles& nibbles, size_t step,
                     uint8_t (&words)[kWordSteps][kPanelVectors][64]) {
  const __m512i table = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(signed_levels()));
  store_word_step(nibbles, table, step, words, [](__m512i levels, __m512i) { return levels; });
}

template <size_t tokens>
void clear(Parts<tokens>& parts) {
#pragma GCC unroll 6
  for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
    for (size_t v = 0; v < kPanelVectors; ++v) parts[t][v] = _mm512_setzero_si512();
  }
}

// 8 bits: signed integers, and weights with an offset, since one side of the instruction is
// unsigned. A sum begins with what takes the offset back.
struct ByteDots {
  static constexpr size_t kBlocks = 16;
  static constexpr size_t kSteps = kByteSteps;
  static constexpr bool kRounded = false;
  static constexpr float kLargest = gptoss::kLargest<1>;

  struct Values {
    uint8_t bytes[kByteSteps][kDotTokens][4];
    int32_t correction[kDotTokens];  // −12 · Σ values
  };
  struct Weights {
    uint8_t bytes[kByteSteps][kPanelVectors][64];
  };

  static void pack(__m512i first, __m512i second, size_t token, Values& values) {
    pack_bytes(first, second, token, values.bytes);
    values.correction[token] = -kOffset * _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
  }

  static void decode(const Nibbles& nibbles, size_t step, Weights& weights) {
    store_byte_step(nibbles, level_table(), step, weights.bytes);
  }

  template <size_t tokens, class After>
  static void dot(const Weights& weights, const Values& values, Parts<tokens>& parts,
                  const After& after) {
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kPanelVectors; ++v)
        parts[t][v] = _mm512_set1_epi32(values.correction[t]);
    }
    add_steps<kByteSteps, tokens>(
        weights.bytes, values.bytes, parts,
        [](__m512i sum, __m512i rows, __m512i some) {
          return _mm512_dpbusd_epi32(sum, rows, some);
        },
        after);
  }
};

// 16 bits: both sides are signed.
struct WordDots {
  static constexpr size_t kBlocks = 8;
  static constexpr size_t kSteps = kWordSteps;
  static constexpr bool kRounded = true;
  static constexpr float kLargest = gptoss::kLargest<2>;

  struct Values {
    uint16_t words[kWordSteps][kDotTokens][2];
  };
  struct Weights {
    uint8_t words[kWordSteps][kPanelVectors][64];
  };

  static void pack(__m512i first, __m512i second, size_t token, Values& values) {
    pack_words(words_of(first, second), token, values.words);
  }

  static void decode(const Nibbles& nibbles, size_t step, Weights& weights) {
    store_word_step(nibbles, step, weights.words);
  }

  template <size_t tokens, class After>
  static void dot(const Weights& weights, const Values& values, Parts<tokens>& parts,
                  const After& after) {
    clear<tokens>(parts);
    add_steps<kWordSteps, tokens>(
        weights.words, values.words, parts,
        [](__m512i sum, __m512i rows, __m512i some) {
          return _mm512_dpwssd_epi32(sum, rows, some);
        },
        after);
  }
};

// 24 bits: the upper 16 as above, and the lower 8 as unsigned bytes, so that neither side needs an
// offset.
struct WordAndByteDots {
  static constexpr size_t kBlocks = 6;
  static constexpr size_t kSteps = kWordSteps + kByteSteps;
  static constexpr bool kRounded = false;
  static constexpr float kLargest = gptoss::kLargest<3>;

  struct Values {
    uint16_t words[kWordSteps][kDotTokens][2];
    uint8_t bytes[kByteSteps][kDotTokens][4];
  };
  struct Weights {
    uint8_t words[kWordSteps][kPanelVectors][64];
    uint8_t bytes[kByteSteps][kPanelVectors][64];
  };

  static void pack(__m512i first, __m512i second, size_t token, Values& values) {
    pack_words(words_of(_mm512_srai_epi32(first, 8), _mm512_srai_epi32(second, 8)), token,
               values.words);
    pack_bytes(first, second, token, values.bytes);
  }

  static void decode(const Nibbles& nibbles, size_t step, Weights& weights) {
    if (step < kWordSteps) return store_word_step(nibbles, step, weights.words);
    store_byte_step(nibbles, signed_levels(), step - kWordSteps, weights.bytes);
  }

  template <size_t tokens, class After>
  static void dot(const Weights& weights, const Values& values, Parts<tokens>& parts,
                  const After& after) {
    clear<tokens>(parts);
    add_steps<kWordSteps, tokens>(
        weights.words, values.words, parts,
        [](__m512i sum, __m512i rows, __m512i some) {
          return _mm512_dpwssd_epi32(sum, rows, some);
        },
        after);
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kPanelVectors; ++v) parts[t][v] = _mm512_slli_epi32(parts[t][v], 8);
    }
    add_steps<kByteSteps, tokens>(
        weights.bytes, values.bytes, parts,
        [](__m512i sum, __m512i rows, __m512i some) {
          return _mm512_dpbusd_epi32(sum, some, rows);
        },
        [&](size_t step) { after(kWordSteps + step); });
  }
};

}  // namespace
}  // namespace gptoss

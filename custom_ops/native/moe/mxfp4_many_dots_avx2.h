// How a block of integers meets a block of doubled levels with AVX2, 32 products to a sum, for
// mxfp4_many_avx2.cc: as mxfp4_many_dots.h, which is of AVX-512 VNNI.
//
//   static constexpr size_t kBlocks;  // of a piece: 9 to 13 kB of decoded weights
//   static constexpr bool kRounded;   // values are rounded to bfloat16 first
//   static constexpr float kMost;     // the integer of a block's greatest value
//   struct Values;                    // of kTileTokens tokens
//   struct Weights;                   // of kVectors registers of rows
//   static void pack(const Ints (&integers)[4], size_t token, Values& values);
//   static void decode(const Ints (&offset_levels)[kByteSteps], size_t v, Weights& weights);
//   template <size_t tokens>
//   static void dot(const Weights&, const Values&, Parts<tokens>& parts);
//
// Levels are doubled to be integers. As bytes they have an offset, because one side of the
// instruction is unsigned. A block's pairs of bytes add up in 16 bits: they may wrap, but what
// remains when the offset is taken back, 16 · 12 · 128 at most, fits.
//
// Included by files that are compiled with AVX2 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include "moe/mxfp4_levels.h"

namespace gptoss {
namespace {

using Ints = __m256i;

constexpr size_t kLanes = 8, kVectors = 2;
constexpr size_t kByteSteps = kBlock / 4, kWordSteps = kBlock / 2;
constexpr size_t kTileTokens = 4;

template <size_t tokens>
using Parts = Ints[tokens][kVectors];

Ints load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const Ints*>(p)); }
void store(uint8_t* p, Ints x) { _mm256_store_si256(reinterpret_cast<Ints*>(p), x); }

// Four bytes or two words, in every lane.
Ints broadcast(const void* four) {
  int32_t bits;
  std::memcpy(&bits, four, sizeof bits);
  return _mm256_set1_epi32(bits);
}

// parts += dot products of the steps, `multiply(sum, weights, values)` each.
template <size_t steps, size_t tokens, class Value, class Multiply>
[[gnu::always_inline]] inline void add_steps(const uint8_t (&weights)[steps][kVectors][32],
                                             const Value& values, Parts<tokens>& parts,
                                             const Multiply& multiply) {
#pragma GCC unroll 16  // these loops are unrolled to keep the sums in registers
  for (size_t step = 0; step < steps; ++step) {
    Ints rows[kVectors];
#pragma GCC unroll 2
    for (size_t v = 0; v < kVectors; ++v) {
      rows[v] = load(weights[step][v]);
      asm("" : "+x"(rows[v]));  // else it would be loaded for each token
    }
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
      const Ints some = broadcast(values[step][t]);
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) {
        parts[t][v] = multiply(parts[t][v], rows[v], some);
        asm("" : "+x"(parts[t][v]));  // else the sums would be taken in another order, and spill
      }
    }
  }
}

// Of the low bytes of a token's integers. Nibbles come four at a time, in the order of memory, the
// low ones of 32 bits apart from the high ones.
struct Bytes {
  struct Values {
    int8_t values[kByteSteps][kTileTokens][4];
    int16_t correction[kTileTokens][2];  // by half of a lane −12 · Σ values: takes the offset back
  };
  struct Weights {
    uint8_t bytes[kByteSteps][kVectors][32];
  };

  static void pack(const Ints (&integers)[4], size_t token, Values& values) {
    Ints sum = _mm256_setzero_si256();
    for (size_t i = 0; i < 4; ++i) {
      sum = _mm256_add_epi32(sum, _mm256_srai_epi32(_mm256_slli_epi32(integers[i], 24), 24));
      const Ints order = _mm256_broadcastsi128_si256(
          _mm_setr_epi8(0, 8, 4, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
      const Ints bytes = _mm256_shuffle_epi8(integers[i], order);
      const __m128i both =
          _mm_unpacklo_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
      const int64_t even_and_odd = _mm_cvtsi128_si64(both);
      std::memcpy(values.values[i][token], &even_and_odd, 4);
      const int32_t odd = static_cast<int32_t>(even_and_odd >> 32);
      std::memcpy(values.values[4 + i][token], &odd, 4);
    }
    const int halves[2] = {sum_of(_mm256_castsi256_si128(sum)),
                           sum_of(_mm256_extracti128_si256(sum, 1))};
    for (size_t half = 0; half < 2; ++half)
      values.correction[token][half] = static_cast<int16_t>(-kOffset * halves[half]);
  }

  static void decode(const Ints (&offset_levels)[kByteSteps], size_t v, Weights& weights) {
    for (size_t step = 0; step < kByteSteps; ++step)
      store(weights.bytes[step][v], offset_levels[step]);
  }

  template <size_t tokens>
  [[gnu::always_inline]] static void dot(const Weights& weights, const Values& values,
                                         Parts<tokens>& parts) {
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) parts[t][v] = broadcast(values.correction[t]);
    }
    add_steps<kByteSteps, tokens>(weights.bytes, values.values, parts,
                                  [](Ints sum, Ints rows, Ints some) {
                                    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(rows, some));
                                  });
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v)
        parts[t][v] = _mm256_madd_epi16(parts[t][v], _mm256_set1_epi16(1));
    }
  }
};

// Of words. Two steps have the words of what is one step of bytes: its even ones, and its odd ones.
template <int shift>  // of levels
struct Words {
  struct Values {
    int16_t values[kWordSteps][kTileTokens][2];
  };
  struct Weights {
    uint8_t words[kWordSteps][kVectors][32];
  };

  static void pack(const Ints (&integers)[4], size_t token, Values& values) {
    for (size_t i = 0; i < 4; ++i) {
      const __m128i low = _mm256_castsi256_si128(integers[i]);
      const __m128i high = _mm_slli_epi32(_mm256_extracti128_si256(integers[i], 1), 16);
      alignas(16) int16_t pairs[4][2];  // of values 0 and 4, 1 and 5, 2 and 6, 3 and 7
      _mm_store_si128(reinterpret_cast<__m128i*>(pairs), _mm_blend_epi16(low, high, 0xaa));
      for (size_t pair = 0; pair < 4; ++pair)
        std::memcpy(values.values[8 * (pair % 2) + 2 * i + pair / 2][token], pairs[pair], 4);
    }
  }

  static void decode(const Ints (&offset_levels)[kByteSteps], size_t v, Weights& weights) {
    for (size_t step = 0; step < kByteSteps; ++step) {
      const Ints levels = _mm256_sub_epi8(offset_levels[step], _mm256_set1_epi8(kOffset));
      const Ints even = _mm256_slli_epi16(levels, 8);
      const Ints odd = _mm256_and_si256(levels, _mm256_set1_epi16(static_cast<short>(0xff00)));
      store(weights.words[2 * step][v], _mm256_srai_epi16(even, 8 - shift));
      store(weights.words[2 * step + 1][v], _mm256_srai_epi16(odd, 8 - shift));
    }
  }

  // Adds to what `parts` hold.
  template <size_t tokens>
  [[gnu::always_inline]] static void add_dot(const Weights& weights, const Values& values,
                                             Parts<tokens>& parts) {
    add_steps<kWordSteps, tokens>(weights.words, values.values, parts,
                                  [](Ints sum, Ints rows, Ints some) {
                                    return _mm256_add_epi32(sum, _mm256_madd_epi16(rows, some));
                                  });
  }
};

struct Int8Dots : Bytes {
  static constexpr size_t kBlocks = 16;
  static constexpr bool kRounded = false;
  static constexpr float kMost = kLargest<1>;
};

struct Bf16Dots : Words<0> {
  static constexpr size_t kBlocks = 8;
  static constexpr bool kRounded = true;
  static constexpr float kMost = kLargest<2>;

  template <size_t tokens>
  [[gnu::always_inline]] static void dot(const Weights& weights, const Values& values,
                                         Parts<tokens>& parts) {
#pragma GCC unroll 6
    for (size_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (size_t v = 0; v < kVectors; ++v) parts[t][v] = _mm256_setzero_si256();
    }
    add_dot<tokens>(weights, values, parts);
  }
};

struct ExactDots {
  using Low = Bytes;
  using High = Words<8>;
  static constexpr size_t kBlocks = 8;
  static constexpr bool kRounded = false;
  static constexpr float kMost = kLargest<3>;

  struct Values {
    Low::Values low;
    High::Values high;
  };
  struct Weights {
    Low::Weights low;
    High::Weights high;
  };

  static void pack(const Ints (&integers)[4], size_t token, Values& values) {
    Low::pack(integers, token, values.low);
    Ints above[4];  // what the low byte, with its sign, leaves
    for (size_t i = 0; i < 4; ++i)
      above[i] = _mm256_srai_epi32(_mm256_add_epi32(integers[i], _mm256_set1_epi32(0x80)), 8);
    High::pack(above, token, values.high);
  }

  static void decode(const Ints (&offset_levels)[kByteSteps], size_t v, Weights& weights) {
    Low::decode(offset_levels, v, weights.low);
    High::decode(offset_levels, v, weights.high);
  }

  template <size_t tokens>
  [[gnu::always_inline]] static void dot(const Weights& weights, const Values& values,
                                         Parts<tokens>& parts) {
    Low::dot<tokens>(weights.low, values.low, parts);
    High::add_dot<tokens>(weights.high, values.high, parts);
  }
};

}  // namespace
}  // namespace gptoss

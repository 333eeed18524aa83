// The tokens of LinearInt8 as its panels multiply them: integers of a common scale for 32 values,
// in one digit of 8 bits (mode int8), two (bf16) or three (exact).
//
// Of three digits the last two share an int32, and the first has one of its own: each of these
// parts has its own scale. The lanes of a token, by block and part:
//
//   scale | -offset · Σ values, which takes the weights' offset back | 8 lanes of 4 values by digit
//
// with the most significant digit of a part first. Where the kernel multiplies words (V::kWords),
// two digits are one: 16 lanes of two values take their place, the even ones of four, then the odd.
//
// A V holds kWords, kOffset, which is added to weights of bytes, and
// write_integers<rounded>(x, largest, out): 32 values ≈ out times the scale that it returns; where
// `rounded`, of x rounded to bfloat16 (machine/digits.h). Included as linear_int8_panel.h.
#pragma once

#include <cstdint>

#include "linear/linear_int8_ahead.h"
#include "linear/linear_kernels.h"

namespace gptoss {

constexpr size_t kQuads = kScaleBlock / 4;
constexpr size_t kPartHead = 2;  // lanes before a part's digits: scale and correction

// Lanes of one block of a token.
template <size_t digits>
constexpr size_t kBlockOfToken = (digits == 3 ? 2 : 1) * kPartHead + digits * kQuads;

// The largest integer of a block: of three digits the first is at most 127.
template <size_t digits>
constexpr float kLargest = digits == 1   ? 127.0f
                           : digits == 2 ? 127.0f * 256
                                         : 127.0f * 65536;

template <class V, size_t digits>
struct Int8Tokens {
  static size_t lanes(size_t depth) noexcept { return depth / kScaleBlock * kBlockOfToken<digits>; }

  static void pack(const float* x, size_t depth, float* lanes) noexcept {
    for (size_t k = 0; k < depth; k += kScaleBlock) {
      alignas(kLine) int32_t integers[kScaleBlock];
      const float scale =
          V::template write_integers<digits == 2>(x + k, kLargest<digits>, integers);
      if constexpr (V::kWords) {
        lanes = pack_words(integers, scale, lanes);
        continue;
      }
      int8_t values[digits][kScaleBlock];
      for (size_t digit = 0; digit < digits; ++digit) {
        for (size_t i = 0; i < kScaleBlock; ++i) {
          values[digit][i] = static_cast<int8_t>(integers[i]);
          integers[i] = (integers[i] - values[digit][i]) >> 8;
        }
      }
      lanes = pack_part(values, 0, digits == 1 ? 1 : 2, scale, lanes);
      if constexpr (digits == 3) lanes = pack_part(values, 2, 1, scale * 65536.0f, lanes);
    }
  }

 private:
  static float* pack_words(const int32_t (&integers)[kScaleBlock], float scale, float* lanes) {
    lanes[0] = scale;
    lanes[1] = 0;  // nothing is taken back
    int16_t words[kScaleBlock];
    for (size_t i = 0; i < kScaleBlock; i += 4) {
      constexpr size_t kOrder[] = {0, 2, 1, 3};
      for (size_t j = 0; j < 4; ++j) words[i + j] = static_cast<int16_t>(integers[i + kOrder[j]]);
    }
    __builtin_memcpy(lanes + kPartHead, words, sizeof words);
    return lanes + kBlockOfToken<digits>;
  }

  // A part holds digits [last, last + count), the most significant one first.
  static float* pack_part(const int8_t (&values)[digits][kScaleBlock], size_t last, size_t count,
                          float scale, float* lanes) {
    int32_t sum = 0;
    for (size_t digit = last + count; digit-- > last;) {
      int32_t of_digit = 0;
      for (const int8_t value : values[digit]) of_digit += value;
      sum = sum * 256 + of_digit;
    }
    const int32_t taken_back = -V::kOffset * sum;
    lanes[0] = scale;
    __builtin_memcpy(lanes + 1, &taken_back, sizeof taken_back);
    lanes += kPartHead;
    for (size_t digit = last + count; digit-- > last; lanes += kQuads)
      __builtin_memcpy(lanes, values[digit], kScaleBlock);
    return lanes;
  }
};

}  // namespace gptoss

// Eight blocks of numbers, read so that each vector holds one number of every block.
//
// Included by files that are compiled with AVX2 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include "machine/vectors_avx2.h"
#include "encoding/mxfp4_quantize.h"

namespace gptoss {
namespace {

constexpr int kBlocks = 8;
static_assert(kBlocks == kSumLanes);

// Number i of block b is numbers[i][b].
struct alignas(32) Eight {
  float numbers[kBlockNumbers][kBlocks];
};

template <Element element>
__m256 widen(const unsigned char* address) {
  if constexpr (element == Element::float32) return Floats8::load(address);
  if constexpr (element == Element::float16) return Floats8::from_float16(address);
  if constexpr (element == Element::bfloat16) return Floats8::from_bfloat16(address);
}

// Blocks whose numbers stand side by side in memory: by columns.
template <Element element>
void load_columns(const unsigned char* numbers, int64_t next_number, Eight& eight) {
  for (int i = 0; i < kBlockNumbers; ++i)
    Floats8::store(eight.numbers[i], widen<element>(numbers + i * next_number));
}

// Blocks one behind the other: by rows.
template <Element element>
void load_rows(const unsigned char* numbers, int64_t next_block, Eight& eight) {
  for (int i = 0; i < kBlockNumbers; i += kBlocks) {
    __m256 r[kBlocks];
    for (int b = 0; b < kBlocks; ++b)
      r[b] = widen<element>(numbers + b * next_block + i * bytes_of(element));
    Floats8::transpose(r);
    for (int k = 0; k < kBlocks; ++k) Floats8::store(eight.numbers[i + k], r[k]);
  }
}

// Fewer than eight blocks, and zeros beside them; nothing behind them is read.
template <Element element>
void load_some(const NumberBlocks& blocks, int64_t first, int64_t count, Eight& eight) {
  constexpr int64_t kSize = bytes_of(element);
  for (int i = 0; i < kBlockNumbers; ++i) {
    unsigned char some[kBlocks * kSize] = {};
    const unsigned char* number =
        blocks.numbers + i * blocks.next_number + first * blocks.next_block;
    for (int64_t b = 0; b < count; ++b)
      __builtin_memcpy(some + b * kSize, number + b * blocks.next_block, kSize);
    Floats8::store(eight.numbers[i], widen<element>(some));
  }
}

template <Element element>
void load(const NumberBlocks& blocks, int64_t first, int64_t count, Eight& eight) {
  const unsigned char* numbers = blocks.numbers + first * blocks.next_block;
  if (count < kBlocks) {
    load_some<element>(blocks, first, count, eight);
  } else if (blocks.next_block == bytes_of(element)) {
    load_columns<element>(numbers, blocks.next_number, eight);
  } else {
    load_rows<element>(numbers, blocks.next_block, eight);
  }
}

}  // namespace
}  // namespace gptoss

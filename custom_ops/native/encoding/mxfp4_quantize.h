// Encoding MXFP4: what custom_ops/mxfp4_quantize.py, the definition, makes of numbers, bit for bit.
#pragma once

#include <cstdint>

#include "machine/cpu_features.h"

namespace gptoss {

constexpr int kBlockNumbers = 32;  // they share a scale
constexpr int kBlockCodes = 16;    // bytes of their codes, two a byte
constexpr int kSumLanes = 8;       // sums that grow side by side, at every level alike

enum class Element { float32, float16, bfloat16 };

constexpr int64_t bytes_of(Element element) { return element == Element::float32 ? 4 : 2; }

// Blocks of numbers, each as far from the one before it. Steps are in bytes.
struct NumberBlocks {
  const unsigned char* numbers;  // at any address
  Element element;
  int64_t count;
  int64_t next_number;  // of the same block
  int64_t next_block;
};

// Where the codes and the scale of each block go.
struct EncodedBlocks {
  unsigned char* codes;
  unsigned char* scales;
  int64_t next_codes;
  int64_t next_scale;
};

// Of all blocks whose index leaves the same rest by kSumLanes: the squares of what was added to
// numbers, and of the numbers.
struct SquareSums {
  double lost[kSumLanes];
  double total[kSumLanes];
};

struct Quantizer {
  // Writes codes and scales, and adds to the sums. A block that is not finite gets the scale 255
  // and any codes.
  void (*quantize)(const NumberBlocks& blocks, const EncodedBlocks& encoded, SquareSums& sums);
  // Says whether all are MXFP4 by their values.
  bool (*is_exact)(const NumberBlocks& blocks);
};

Quantizer quantizer_scalar();
Quantizer quantizer_avx2();

// The constants of the definition.
constexpr int kLargestScale = 252;
constexpr int kScaleOfNan = 255;
constexpr int kExponentOfFour = 2;
constexpr float kRounder = 6291456;  // 1.5 · 2^22
constexpr float kLargestLevel = 6;

// Rows of blocks, or columns of them, as a matrix of weights has them.
struct NumberMatrix {
  const unsigned char* numbers;
  Element element;
  int64_t rows;    // of the result
  int64_t groups;  // blocks a row
  bool columns;    // the numbers lie as (groups · 32, rows), else as (rows, groups · 32)
};

// Encodes a matrix. `pitch` is how many blocks lie from a row of the result to the next; by rows it
// is `groups`.
void quantize_matrix(const NumberMatrix& matrix, int64_t pitch, unsigned char* codes,
                     unsigned char* scales, const Quantizer& quantizer, SquareSums& sums);

bool is_exact_matrix(const NumberMatrix& matrix, const Quantizer& quantizer);

Quantizer quantizer_of(CpuLevel level);

}  // namespace gptoss

// Adding a product of two small matrices (LoRA) to rows of numbers: what add_low_rank of
// custom_ops/low_rank.py, the definition, computes.
#pragma once

#include <cstdint>

#include "machine/cpu_features.h"

namespace gptoss {

constexpr int64_t kTileRows = 4;
constexpr int64_t kTileColumns = 192;  // whole blocks of MXFP4, whole registers

// Rows of numbers: bfloat16, or MXFP4 codes where `scales` is not null.
struct BaseRows {
  const unsigned char* numbers;
  const unsigned char* scales;
  int64_t rows;
  int64_t width;
};

struct LowRankProduct {
  const float* left;   // (rows, rank)
  const float* right;  // (rank, width)
  int64_t rank;
  float scale;
};

// What a level has to offer. Tiles of float32 are (kTileRows, kTileColumns).
struct LowRankKernel {
  // Widens `count` bfloat16.
  void (*widen)(const unsigned char* numbers, int64_t count, float* wide);
  // Decodes `count` blocks of MXFP4.
  void (*decode)(const unsigned char* codes, const unsigned char* scales, int64_t count,
                 float* numbers);
  // Adds to `rows` rows of a tile of numbers the product of `left`, (rows, rank), and `panel`,
  // (rank, kTileColumns), and writes the sums of the first `columns` columns, at least, rounded to
  // bfloat16; rows of sums lie `pitch` elements apart. It may write up to the next multiple of 8.
  void (*add)(const float* numbers, const float* left, const float* panel, int64_t rank,
              float scale, int64_t rows, int64_t columns, uint16_t* sums, int64_t pitch);
};

LowRankKernel low_rank_scalar();
LowRankKernel low_rank_avx2();
LowRankKernel low_rank_of(CpuLevel level);

// Writes the sums, (rows, width). Throws std::bad_alloc.
void add_low_rank(const BaseRows& base, const LowRankProduct& product, const LowRankKernel& kernel,
                  uint16_t* sums);

}  // namespace gptoss

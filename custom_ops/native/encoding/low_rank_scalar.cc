// A number at a time: the oracle of the vector version, bit for bit.
#include <cmath>
#include <cstring>

#include "encoding/low_rank.h"
#include "encoding/mxfp4_decode.h"
#include "machine/bfloat16.h"

namespace gptoss {
namespace {

void widen(const unsigned char* numbers, int64_t count, float* wide) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, numbers + 2 * i, sizeof bits);
    wide[i] = float_of(uint32_t{bits} << 16);
  }
}

void add(const float* numbers, const float* left, const float* panel, int64_t rank, float scale,
         int64_t rows, int64_t columns, uint16_t* sums, int64_t pitch) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      float product = 0;
      for (int64_t k = 0; k < rank; ++k)
        product = std::fma(left[row * rank + k], panel[k * kTileColumns + column], product);
      const float number = numbers[row * kTileColumns + column];
      sums[row * pitch + column] = bfloat16_bits(std::fma(scale, product, number));
    }
  }
}

}  // namespace

LowRankKernel low_rank_scalar() { return {widen, decode_scalar, add}; }

}  // namespace gptoss

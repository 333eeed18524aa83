// A block at a time: the oracle of the vector version.
//
// Compiled without fused multiply-add, whose sums would be others.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/bfloat16.h"
#include "machine/float16.h"
#include "encoding/mxfp4_quantize.h"

namespace gptoss {
namespace {

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// 2^(exponent − 127), also where it is subnormal.
float power(int exponent) {
  return float_of(exponent > 0 ? uint32_t(exponent) << 23 : uint32_t{1} << 22);
}

float number_at(const unsigned char* address, Element element) {
  if (element == Element::float32) {
    float value;
    std::memcpy(&value, address, sizeof value);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, address, sizeof half);
  return element == Element::float16 ? float_of_float16(half) : float_of(uint32_t{half} << 16);
}

// The nearest level times `scale`, a power of two.
float nearest(float value, float scale) {
  const float below = float_of(bits_of(value) & 0x7f800000);
  const float rounder = std::max(below, scale) * kRounder;
  const float rounded = (value + rounder) - rounder;
  return std::clamp(rounded, -kLargestLevel * scale, kLargestLevel * scale);
}

// A block, its scale as the specification proposes it, and its numbers over that scale.
struct Block {
  float numbers[kBlockNumbers];
  float values[kBlockNumbers];
  int scale;
  float largest;
  bool finite;

  Block(const NumberBlocks& blocks, int64_t index) {
    uint32_t top = 0;
    for (int i = 0; i < kBlockNumbers; ++i) {
      const int64_t at = index * blocks.next_block + i * blocks.next_number;
      numbers[i] = number_at(blocks.numbers + at, blocks.element);
      top = std::max(top, bits_of(numbers[i]) & 0x7fffffff);
    }
    scale = std::clamp(static_cast<int>(top >> 23) - kExponentOfFour, 0, kLargestScale);
    const float factor = power(2 * 127 - scale);
    for (int i = 0; i < kBlockNumbers; ++i) values[i] = numbers[i] * factor;
    largest = float_of(top) * factor;
    finite = top < 0x7f800000;
  }

  float decoded(int i) const { return nearest(values[i], 1) * power(scale); }
};

// Halves are added to halves, as the definition does it.
template <class Square>
float sum_of(Square square) {
  float sums[kBlockNumbers];
  for (int i = 0; i < kBlockNumbers; ++i) sums[i] = square(i);
  for (int count = kBlockNumbers / 2; count > 0; count /= 2)
    for (int i = 0; i < count; ++i) sums[i] += sums[i + count];
  return sums[0];
}

float loss(const Block& block, float scale) {
  return sum_of([&](int i) {
    const float added = nearest(block.values[i], scale) - block.values[i];
    return added * added;
  });
}

// What rounding adds where float32 takes the squares for zero.
double tiny_loss(const Block& block) {
  double sum = 0;
  for (int i = 0; i < kBlockNumbers; ++i) {
    const double added =
        static_cast<double>(block.decoded(i)) - static_cast<double>(block.numbers[i]);
    sum += added * added;
  }
  return sum;
}

// Returns the best scale relative to the proposed one, −1, 0 or 1, and what it loses.
int choose(const Block& block, float& least) {
  const float missed = block.largest - kLargestLevel / 2;
  const bool halved = missed * missed < least && block.scale > 0;
  const bool doubled = block.largest > kLargestLevel + 1 && block.scale < kLargestScale;
  int step = 0;
  const auto attempt = [&](int tried, float scale) {
    const float lost = loss(block, scale);
    if (!(lost < least)) return;  // the first among equals stays
    least = lost;
    step = tried;
  };
  if (halved) attempt(-1, 0.5f);
  if (doubled) attempt(1, 2);
  return step;
}

// The code of a level of this magnitude: twice the level, in floating point of its own.
uint32_t code_of(float level) {
  const int size = static_cast<int>((bits_of(level) & 0x7fffffff) >> 22);
  return static_cast<uint32_t>(std::max(size - 252, std::min(size, 1)));
}

void quantize(const NumberBlocks& blocks, const EncodedBlocks& encoded, SquareSums& sums) {
  for (int64_t index = 0; index < blocks.count; ++index) {
    const Block block(blocks, index);
    float least = loss(block, 1);
    const int step = choose(block, least);
    const float factor = power(127 - step);
    unsigned char* codes = encoded.codes + index * encoded.next_codes;
    for (int i = 0; i < kBlockNumbers; i += 2) {
      uint32_t pair = 0;
      for (int k = 0; k < 2; ++k) {
        const float value = block.values[i + k];
        const uint32_t sign = bits_of(value) >> 31 << 3;
        pair |= (code_of(nearest(value * factor, 1)) | sign) << 4 * k;
      }
      codes[i / 2] = static_cast<unsigned char>(pair);
    }
    encoded.scales[index * encoded.next_scale] =
        static_cast<unsigned char>(block.finite ? block.scale + step : kScaleOfNan);
    const double scale = power(block.scale);
    const float total = sum_of([&](int i) { return block.values[i] * block.values[i]; });
    sums.lost[index % kSumLanes] += least == 0 ? tiny_loss(block) : least * scale * scale;
    sums.total[index % kSumLanes] += total * scale * scale;
  }
}

bool is_exact(const NumberBlocks& blocks) {
  for (int64_t index = 0; index < blocks.count; ++index) {
    const Block block(blocks, index);
    for (int i = 0; i < kBlockNumbers; ++i)
      if (!(block.decoded(i) == block.numbers[i])) return false;
  }
  return true;
}

}  // namespace

Quantizer quantizer_scalar() { return {quantize, is_exact}; }

}  // namespace gptoss

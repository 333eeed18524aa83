// A number at a time: the oracle of the vector version.
#include <limits>

#include "encoding/mxfp4_decode.h"
#include "machine/bfloat16.h"

namespace gptoss {
namespace {

constexpr float kLevels[16] = {0,     0.5f,  1,     1.5f, 2,  3,  4,  6,
                               -0.0f, -0.5f, -1.0f, -1.5f, -2, -3, -4, -6};

float factor_of(unsigned char scale) {
  if (scale == 255) return std::numeric_limits<float>::quiet_NaN();
  return float_of(scale > 0 ? uint32_t{scale} << 23 : uint32_t{1} << 22);
}

}  // namespace

void decode_scalar(const unsigned char* codes, const unsigned char* scales, int64_t count,
                   float* numbers) {
  for (int64_t block = 0; block < count; ++block) {
    const float factor = factor_of(scales[block]);
    for (int i = 0; i < 16; ++i) {
      const unsigned char pair = *codes++;
      *numbers++ = kLevels[pair & 15] * factor;
      *numbers++ = kLevels[pair >> 4] * factor;
    }
  }
}

}  // namespace gptoss

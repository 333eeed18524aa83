// MXFP4 times tokens in plain C++: what every other level is tested against.
#include "machine/activations.h"
#include "moe/mxfp4.h"

namespace gptoss {
namespace {

size_t packed_bytes(size_t tokens, size_t width) { return tokens * width * sizeof(float); }

template <Activations mode>
void pack(const float* x, size_t first, size_t count, size_t width, size_t token,
          std::byte* packed) {
  round_activations(mode, x, count, reinterpret_cast<float*>(packed) + token * width + first);
}

size_t scratch_bytes(size_t, size_t) { return 0; }

float dot(const uint8_t* blocks, const uint8_t* scales, const float* x, size_t width) {
  float sum = 0;
  for (size_t block = 0; block < width / kBlock; ++block) {
    float partial = 0;
    for (size_t i = 0; i < kBlockBytes; ++i) {
      const uint8_t byte = blocks[block * kBlockBytes + i];
      partial += kLevels[byte & 15] * x[block * kBlock + 2 * i];
      partial += kLevels[byte >> 4] * x[block * kBlock + 2 * i + 1];
    }
    sum += scale_factor(scales[block]) * partial;
  }
  return sum;
}

void multiply(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte*, float* out,
              size_t stride) {
  const float* x = reinterpret_cast<const float*>(tokens.data) + tokens.first * rows.width;
  const size_t blocks = rows.width / kBlock;
  for (size_t r = 0; r < rows.count; ++r) {
    for (size_t t = 0; t < tokens.count; ++t) {
      out[t * stride + r] = dot(rows.blocks + r * blocks * kBlockBytes, rows.scales + r * blocks,
                                x + t * rows.width, rows.width);
    }
  }
}

template <Activations mode>
constexpr Mxfp4Kernel kKernel = {1, packed_bytes, pack<mode>, scratch_bytes, multiply};

}  // namespace

const Mxfp4Kernel& mxfp4_scalar(Activations activations) {
  switch (activations) {
    case Activations::bf16:
      return kKernel<Activations::bf16>;
    case Activations::int8:
      return kKernel<Activations::int8>;
    default:
      return kKernel<Activations::exact>;
  }
}

}  // namespace gptoss

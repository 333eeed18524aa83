// LinearPacked without vector instructions: the oracle of the other versions, and what runs on a
// machine that has none.
#include <cstring>

#include "linear/linear_packed_kernels.h"

namespace gptoss {
namespace {

// Weight k of a row as the bits of a bfloat16.
uint16_t weight_bits(const unsigned char* low, const unsigned char* high, unsigned char base,
                     size_t k) noexcept {
  constexpr size_t kHalf = kPackedBlock / 2;
  const size_t block = k / kPackedBlock, i = k % kPackedBlock;
  const unsigned byte = high[block * kHalf + i % kHalf];
  const unsigned code = i < kHalf ? byte & 15 : byte >> 4;
  const unsigned sign = code >> 3, c = code & 7;
  const unsigned upper = sign << 7 | (c == 0 ? 0 : base + c);
  return static_cast<uint16_t>(upper << 8 | low[k]);
}

float widened(uint16_t bits) noexcept {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  for (size_t m = begin; m < end; ++m) {
    const unsigned char* low = call.weight + m * call.depth;
    const unsigned char* high = call.packed->high + m * (call.depth / 2);
    for (size_t n = 0; n < call.tokens; ++n) {
      const float* x = call.x + n * call.depth;
      double sum = call.bias == nullptr ? 0.0 : call.bias[m];  // an oracle rounds once
      for (size_t k = 0; k < call.depth; ++k) {
        const double weight = widened(weight_bits(low, high, call.packed->bases[m], k));
        sum += weight * static_cast<double>(x[k]);
      }
      call.y[n * call.rows + m] = static_cast<float>(sum);
    }
  }
}

void unpack_row(const unsigned char* low, const unsigned char* high, unsigned char base,
                size_t depth, uint16_t* out) noexcept {
  for (size_t k = 0; k < depth; ++k) out[k] = weight_bits(low, high, base, k);
}

}  // namespace

PackedKernels linear_packed_scalar() {
  return {matrix_vector, TokenFormat::float32, {}, unpack_row};
}

}  // namespace gptoss

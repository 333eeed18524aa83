// LinearInt8 without vector instructions: the oracle of the other versions, and what runs on a
// machine that has none.
#include <cstring>

#include "linear/linear_kernels.h"

namespace gptoss {
namespace {

float load(const unsigned char* address) {
  float value;
  std::memcpy(&value, address, sizeof value);  // the address may be odd
  return value;
}

void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  const size_t blocks = call.depth / kScaleBlock;
  for (size_t m = begin; m < end; ++m) {
    const auto* row = reinterpret_cast<const signed char*>(call.weight + m * call.row_bytes);
    const unsigned char* scales = call.scales + m * blocks * sizeof(float);
    for (size_t n = 0; n < call.tokens; ++n) {
      const float* x = call.x + n * call.depth;
      double sum = call.bias == nullptr ? 0.0 : call.bias[m];  // an oracle rounds once
      for (size_t k = 0; k < call.depth; ++k) {
        const double scale = load(scales + k / kScaleBlock * sizeof(float));
        sum += static_cast<double>(x[k]) * (scale * row[k]);
      }
      call.y[n * call.rows + m] = static_cast<float>(sum);
    }
  }
}

}  // namespace

LinearKernels linear_int8_scalar() {
  return {matrix_vector, TokenFormat::float32, 1, nullptr, TokenFormat::float32, 1};
}

}  // namespace gptoss

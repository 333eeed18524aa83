// Linear without vector instructions: the oracle of the other versions, and what runs on a
// machine that has none.
#include <cstdint>
#include <cstring>

#include "linear/linear_kernels.h"
#include "machine/bfloat16.h"
#include "machine/float16.h"

namespace gptoss {
namespace {

template <class T>
T load(const unsigned char* address) {
  T value;
  std::memcpy(&value, address, sizeof value);  // the address may be odd
  return value;
}

template <WeightType type>
float weight_at(const unsigned char* row, size_t k) {
  const unsigned char* address = row + k * bytes_of(type);
  if constexpr (type == WeightType::float32) return load<float>(address);
  if constexpr (type == WeightType::float16) return float_of_float16(load<uint16_t>(address));
  if constexpr (type == WeightType::bfloat16)
    return float_of(uint32_t{load<uint16_t>(address)} << 16);
}

template <WeightType type>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  for (size_t m = begin; m < end; ++m) {
    const unsigned char* row = call.weight + m * call.depth * bytes_of(type);
    for (size_t n = 0; n < call.tokens; ++n) {
      const float* x = call.x + n * call.depth;
      double sum = call.bias == nullptr ? 0.0 : call.bias[m];  // an oracle rounds once
      for (size_t k = 0; k < call.depth; ++k)
        sum += static_cast<double>(x[k]) * weight_at<type>(row, k);
      call.y[n * call.rows + m] = static_cast<float>(sum);
    }
  }
}

template <WeightType type>
constexpr LinearKernels kKernels{
    matrix_vector<type>, TokenFormat::float32, 1, nullptr, TokenFormat::float32, 1};

}  // namespace

LinearKernels linear_scalar(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return kKernels<WeightType::float32>;
    case WeightType::float16:
      return kKernels<WeightType::float16>;
    case WeightType::bfloat16:
      return kKernels<WeightType::bfloat16>;
  }
  return {};
}

}  // namespace gptoss

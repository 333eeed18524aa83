// The scalar kernel of weights by columns, and the choice among the levels.
#include "linear/linear_columns.h"

#include <cstring>

#include "attention/attention_half.h"

namespace gptoss {
namespace {

template <class T>
float weight_at(const WeightColumns& columns, size_t k, size_t column) {
  T weight;
  std::memcpy(&weight, columns.first + k * columns.row_bytes + column * sizeof weight,
              sizeof weight);
  return widen(weight);
}

template <class T>
void multiply(const WeightColumns& columns, const TokenRows& tokens, float* out, size_t stride) {
  for (size_t t = 0; t < tokens.count; ++t) {
    for (size_t c = 0; c < columns.count; ++c) {
      double sum = 0;  // an oracle rounds once
      for (size_t k = 0; k < columns.width; ++k) {
        sum += static_cast<double>(tokens.x[t * tokens.stride + k]) * weight_at<T>(columns, k, c);
      }
      out[t * stride + c] = static_cast<float>(sum);
    }
  }
}

}  // namespace

MultiplyColumns columns_scalar(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return multiply<float>;
    case WeightType::float16:
      return multiply<Float16>;
    case WeightType::bfloat16:
      return multiply<BFloat16>;
  }
  return nullptr;
}

MultiplyColumns columns_kernel(CpuLevel level, WeightType type) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx512) return columns_avx512(type);
  if (level >= CpuLevel::avx2) return columns_avx2(type);
#endif
  (void)level;
  return columns_scalar(type);
}

}  // namespace gptoss

// The scalar kernel of dense experts, and the choice among the levels.
#include "moe/moe_dense.h"

#include <cstring>

#include "attention/attention_half.h"

namespace gptoss {
namespace {

template <class T>
float weight_at(const DenseColumns& columns, size_t k, size_t column) {
  T weight;
  std::memcpy(&weight, columns.first + k * columns.row_bytes + column * sizeof weight, sizeof weight);
  return widen(weight);
}

}  // namespace

template <class T>
void dense_scalar(const DenseColumns& columns, const float* x, size_t tokens, float* out, size_t stride) {
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < columns.count; ++c) {
      float sum = 0;
      for (size_t k = 0; k < columns.width; ++k) sum += x[t * columns.width + k] * weight_at<T>(columns, k, c);
      out[t * stride + c] = sum;
    }
  }
}

template <class T>
DenseMultiply dense_kernel(CpuLevel level) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx512) return dense_avx512<T>;
  if (level >= CpuLevel::avx2) return dense_avx2<T>;
#endif
  (void)level;
  return dense_scalar<T>;
}

template DenseMultiply dense_kernel<float>(CpuLevel);
template DenseMultiply dense_kernel<Float16>(CpuLevel);
template DenseMultiply dense_kernel<BFloat16>(CpuLevel);

}  // namespace gptoss

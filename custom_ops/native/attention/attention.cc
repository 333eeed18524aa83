#include "attention/attention.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "attention/attention_half.h"

namespace gptoss {
namespace {

float bias_of(const DistanceBias& bias, int64_t head, int64_t distance) {
  float sum = 0.0f;
  if (bias.slopes != nullptr) sum -= bias.slopes[head] * static_cast<float>(distance);
  if (bias.table != nullptr)
    sum += bias.table[head * bias.columns + std::min(distance, bias.columns - 1)];
  return sum;
}

}  // namespace

template <class T>
void attend_scalar(const AttentionTask<T>& task) noexcept {
  const int64_t width = padded_width(task.head_dim);
  for (int64_t row = 0; row < task.rows; ++row) {
    const float* query = task.queries + row * width;
    float* sum = task.sums + row * width;
    float& peak = task.peaks[row];
    float total = 0.0f;
    std::fill_n(sum, width, 0.0f);
    const int64_t position = task.first + row / task.group;
    const int64_t begin =
        task.window > 0 ? std::max(task.begin, position - task.window + 1) : task.begin;
    for (int64_t p = begin; p < std::min(task.end, position + 1); ++p) {
      const T* key = task.keys + p % task.capacity * task.head_dim;
      const T* value = task.values + p % task.capacity * task.head_dim;
      float score = 0.0f;
      for (int64_t d = 0; d < task.head_dim; ++d) score += query[d] * widen(key[d]);
      score +=
          kLog2E * bias_of(task.bias, row % task.group, std::min(position, task.bias.farthest) - p);
      const float higher = std::max(peak, score);
      const float rescale = std::exp2(peak - higher);
      const float weight = std::exp2(score - higher);
      for (int64_t d = 0; d < task.head_dim; ++d)
        sum[d] = sum[d] * rescale + weight * widen(value[d]);
      total = total * rescale + weight;
      peak = higher;
    }
    task.totals[row] = total;
  }
}

template void attend_scalar(const AttentionTask<float>&) noexcept;
template void attend_scalar(const AttentionTask<Float16>&) noexcept;
template void attend_scalar(const AttentionTask<BFloat16>&) noexcept;

template <class T>
AttentionKernel<T> attention_kernel([[maybe_unused]] CpuLevel level,
                                    [[maybe_unused]] bool bf16_products) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (level >= CpuLevel::amx && bf16_products) return attend_amx;
    if (level >= CpuLevel::avx512_bf16 && bf16_products) return attend_avx512_bf16;
  }
  if (level >= CpuLevel::avx512) return attend_avx512<T>;
  if (level >= CpuLevel::avx2) return attend_avx2<T>;
#endif
  return attend_scalar<T>;
}

template AttentionKernel<float> attention_kernel(CpuLevel, bool);
template AttentionKernel<Float16> attention_kernel(CpuLevel, bool);
template AttentionKernel<BFloat16> attention_kernel(CpuLevel, bool);

}  // namespace gptoss

// Attention of some query rows of one kv head over a stretch of its cache: where SinkAttention
// spends its time.
#pragma once

#include <cstdint>

#include "machine/cpu_features.h"

namespace gptoss {

// 16-bit numbers as the cache stores them; the kernels widen them to float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

constexpr float kLog2E = 1.44269504f;

// Rows of queries and sums are this much wider than D, so that vector kernels need no tails; the
// rest is zero.
constexpr int64_t kWidthStep = 32;
static constexpr int64_t padded_width(int64_t head_dim) {
  return (head_dim + kWidthStep - 1) / kWidthStep * kWidthStep;
}

// What a layer adds to a score by how far the key lies behind the query: −slope · distance, and
// [distance] of a table whose last column holds for all farther keys. Either pointer may be null;
// numbers are as the model has them.
struct DistanceBias {
  const float* slopes;  // (group), of the head of each row
  const float* table;   // (group, columns)
  int64_t columns;
  int64_t farthest;  // a query at a later position counts as being at this one
};

// Legend: C cache capacity, D head dim, W = padded_width(D).
//
// Row r is one head of the token at position `first` + r / `group`. It sees the positions p with
// begin ≤ p < end, p ≤ its own, and, where window > 0, p > its own − window. The token at p lies in
// slot p mod C; no two positions of [begin, end) share a slot.
//
// A softmax over all keys would need all scores at once. So each row carries `peak`, the largest
// score so far; `total`, the sum of its weights 2^(score − peak); and the sum of weights times
// values. Scores count in powers of two (queries carry the factor scale·log2 e) because 2^x is
// cheaper than e^x.
template <class T>
struct AttentionTask {
  const T* keys;    // (C, D), rotated
  const T* values;  // (C, D)
  int64_t capacity;
  int64_t head_dim;      // D, even
  const float* queries;  // (rows, W), rotated and scaled
  int64_t rows;
  int64_t group;
  int64_t first;
  int64_t window;  // 0: none
  int64_t begin;
  int64_t end;
  DistanceBias bias;
  float* sums;     // (rows, W), result
  float* peaks;    // (rows), holds a finite lower bound (the sink's logit) on entry, result
  float* totals;   // (rows), result; the sink itself is not in it
  float* scratch;  // attention_scratch_size(rows, D) floats
};

// What a vector kernel packs at a time: with head dim 64, keys and values of a block stay in the
// first-level cache.
constexpr int64_t kBlockKeys = 64;
constexpr int64_t kMaxTileRows = 16;

// Floats of scratch that a task of any CPU level may use: packed keys, values and queries, and a
// tile of scores.
static constexpr int64_t attention_scratch_size(int64_t rows, int64_t head_dim) {
  return (2 * kBlockKeys + rows) * padded_width(head_dim) + kMaxTileRows * kBlockKeys;
}

template <class T>
using AttentionKernel = void (*)(const AttentionTask<T>&) noexcept;

// The definition that the vector kernels are tested against.
template <class T>
void attend_scalar(const AttentionTask<T>& task) noexcept;

// fp32 arithmetic on the cached numbers.
template <class T>
void attend_avx2(const AttentionTask<T>& task) noexcept;
template <class T>
void attend_avx512(const AttentionTask<T>& task) noexcept;

// bfloat16 products with fp32 sums: queries and weights are rounded to bfloat16 too.
void attend_avx512_bf16(const AttentionTask<BFloat16>& task) noexcept;
void attend_amx(const AttentionTask<BFloat16>& task) noexcept;

// The best kernel of a CPU level. `bf16_products` allows kernels that are not exact.
template <class T>
AttentionKernel<T> attention_kernel(CpuLevel level, bool bf16_products);

}  // namespace gptoss

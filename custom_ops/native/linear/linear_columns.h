// Weights stored one row for each input, transposed against Linear's: dense experts of gpt-oss,
// GPT-2's Conv1D.
#pragma once

#include <cstddef>

#include "linear/linear_kernels.h"
#include "machine/cpu_features.h"

namespace gptoss {

// Some columns of a weight (width, columns of the whole), where it lies in the mapped file: at any
// address, which no typed pointer may hold.
struct WeightColumns {
  const std::byte* first;  // the first column wanted, in the first row
  size_t row_bytes;        // from one row to the next
  size_t count;
  size_t width;  // rows: values of a token that they multiply
};

struct TokenRows {
  const float* x;
  size_t stride;  // from one token to the next
  size_t count;
};

// out[t · stride + c] = Σ_k x[t][k] · weight[k][c].
using MultiplyColumns = void (*)(const WeightColumns& columns, const TokenRows& tokens, float* out,
                                 size_t stride);

// Up to here the kernels read whole rows, at the speed of memory where these are long: split a
// weight by rows then, not by columns. With more tokens they hold some columns' sums in registers.
constexpr size_t kFewColumnTokens = 8;

MultiplyColumns columns_kernel(CpuLevel level, WeightType type);

// By level, each in a file of its own; the scalar one is the oracle of the others.
MultiplyColumns columns_scalar(WeightType type);
#if defined(__x86_64__)
MultiplyColumns columns_avx2(WeightType type);
MultiplyColumns columns_avx512(WeightType type);
#endif

}  // namespace gptoss

// Dense expert weights as Hugging Face stores them, transposed against MXFP4's: one row for each input.
#pragma once

#include <cstddef>

#include "attention/attention.h"  // Float16, BFloat16
#include "machine/cpu_features.h"

namespace gptoss {

// Some columns of one expert's weight (width, columns of the whole), where it lies in the mapped file: at any
// address, which no typed pointer may hold.
struct DenseColumns {
  const std::byte* first;  // the first column wanted, in the first row
  size_t row_bytes;        // from one row to the next
  size_t count;
  size_t width;
};

// out[t · stride + c] = Σ_k x[t][k] · weight[k][c] for tokens that lie one after another.
using DenseMultiply = void (*)(const DenseColumns& columns, const float* x, size_t tokens, float* out,
                               size_t stride);

template <class T>
DenseMultiply dense_kernel(CpuLevel level);  // T: float, Float16 or BFloat16

// By level, each in a file of its own; the scalar one is the oracle of the others.
template <class T>
void dense_scalar(const DenseColumns& columns, const float* x, size_t tokens, float* out, size_t stride);
template <class T>
void dense_avx2(const DenseColumns& columns, const float* x, size_t tokens, float* out, size_t stride);
template <class T>
void dense_avx512(const DenseColumns& columns, const float* x, size_t tokens, float* out, size_t stride);

}  // namespace gptoss

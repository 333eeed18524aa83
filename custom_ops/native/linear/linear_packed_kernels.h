// The arithmetic of LinearPacked, once per CpuLevel; linear_packed.h says what the operands hold.
#pragma once

#include <cstddef>
#include <cstdint>

#include "machine/activations.h"
#include "linear/linear_kernels.h"

namespace gptoss {

constexpr size_t kPackedBlock = 64;          // neighbours of a row that share 32 bytes of `high`
constexpr unsigned char kLargestBase = 119;  // beyond, exponents would reach those of infinity

// One row as bfloat16 (K), without its exceptions.
using UnpackRow = void (*)(const unsigned char* low, const unsigned char* high, unsigned char base,
                           size_t depth, uint16_t* out) noexcept;

// Few tokens times rows [begin, end) as LinearKernels::matrix_vector, without exceptions.
struct PackedKernels {
  MatrixVector matrix_vector;
  TokenFormat vector_format;
  TokenPacking packing;  // where the format is packed
  UnpackRow unpack_row;
};

// What a call of LinearPacked has beside the operands of LinearCall, whose weight is `low`.
// Positions and values may lie at any address.
struct PackedWeight {
  const unsigned char* high;
  const unsigned char* bases;
  const unsigned char* positions;
  const unsigned char* values;
  size_t exceptions;
  const float* tokens;  // (N, K) as they came
  Activations activations;
  PackedKernels kernels;
  BlockedProduct stored_product;  // of bfloat16 rows
};

PackedKernels linear_packed_scalar();
#if defined(__x86_64__)
PackedKernels linear_packed_avx2(bool rounded);
PackedKernels linear_packed_avx512(bool rounded);
PackedKernels linear_packed_avx512_bf16();
#endif

// The tokens of the vector kernels. Unpacking the two bytes of a register's weights leaves them in
// an order of their own: of 4 · kWidth values, 16 a + 8 h + 2 b + p lies at kWidth (2 h + p) + 4 a
// + b. Here kWidth is the float32 lanes of a register, b < 4, and h and p are 0 or 1.
TokenPacking packed_floats_8(bool rounded);
TokenPacking packed_floats_16(bool rounded);
// The same for 16 lanes, each the pair of p = 0 and p = 1 rounded to bfloat16.
TokenPacking packed_pairs_16();

}  // namespace gptoss

// The arithmetic of Linear and LinearInt8, once per CpuLevel: y = x · weightᵀ + bias.
//
// N tokens, K input width (`depth`), M output width (`rows` of the weight).
#pragma once

#include <cstddef>

#include "machine/activations.h"
#include "machine/cpu_features.h"

namespace gptoss {

enum class WeightType { float32, float16, bfloat16 };

constexpr size_t kLine = 64;  // bytes of the cache

constexpr size_t bytes_of(WeightType type) { return type == WeightType::float32 ? 4 : 2; }

// What the lanes of a token hold, each the size of one float32.
enum class TokenFormat {
  float32,     // a value, rounded to what the activation mode keeps
  pairs,       // two neighbouring values rounded to bfloat16, the first in the low half
  tile_pairs,  // the same, filled up with zeros to a multiple of 16 lanes
  tile_pairs_of_two_terms,    // the same, and then as much again of what rounding took away
  tile_pairs_of_three_terms,  // and of what that rounding took away: their sum is the float32
  packed,                     // what the kernels' own TokenPacking makes of it
};

// A format of one kernel's own. `pack` writes all lanes of a token, at an address that is a
// multiple of 64 bytes where a token has a multiple of 16 lanes.
struct TokenPacking {
  size_t (*lanes)(size_t depth) noexcept;
  void (*pack)(const float* x, size_t depth, float* lanes) noexcept;
};

struct PackedWeight;  // linear_packed.h

// One call's operands.
struct LinearCall {
  const float* x;               // (N, lanes)
  const unsigned char* weight;  // (M, K), as it lies in the mapped file: at any address
  const unsigned char* scales;  // of LinearInt8: (M, K / 32) float32, at any address as well
  const float* bias;            // (M), or null
  float* y;                     // (N, M)
  size_t tokens, depth, rows;   // N, K, M
  size_t lanes;                 // of one token
  size_t row_bytes;             // of the weight
  const PackedWeight* packed;   // of LinearPacked: what it has beside `weight`, the low bytes
};

// Tokens that the blocked product multiplies together, gathered so that those of one lane are
// neighbours: packed[(tile · lanes + lane) · width + t] is x[tile · width + t][lane], zero beyond
// the last token.
struct TokenTiles {
  const float* packed;
  size_t width;  // at most LinearKernels::tile_width
  size_t count;
};

// Few tokens: each weight is read once, in the order it lies in memory. Computes rows [begin, end)
// of every token.
using MatrixVector = void (*)(const LinearCall& call, size_t begin, size_t end) noexcept;

constexpr size_t kVectorRows =
    8;  // rows that it computes together at most: end − begin should be a multiple

// Many tokens: weights are widened block by block into `panel`, and each block multiplies all
// tiles. end − begin is at most kBlockRows; `panel` is aligned to 64 bytes.
using BlockedProduct = void (*)(const LinearCall& call, const TokenTiles& tiles, size_t begin,
                                size_t end, float* panel) noexcept;

constexpr size_t kBlockRows = 64;  // weight rows of one block,
constexpr size_t kBlockLanes =
    720;  // and its columns, in lanes: 180 KiB, for the second-level cache
constexpr size_t kPanelFloats = kBlockRows * kBlockLanes;

struct LinearKernels {
  MatrixVector matrix_vector;
  TokenFormat vector_format;
  size_t vector_tokens;            // the most tokens for which matrix_vector is called
  BlockedProduct blocked_product;  // null: matrix_vector takes any number of tokens
  TokenFormat blocked_format;
  size_t tile_width;
  TokenPacking packing = {};          // where vector_format is packed
  TokenPacking blocked_packing = {};  // where blocked_format is
};

// The kernels of `level` for one weight type: the best that the level allows. With `rounded`,
// tokens are to be rounded to bfloat16.
LinearKernels linear_kernels(CpuLevel level, WeightType type, bool rounded);

// What each file offers. The scalar kernels are the oracle of the others.
LinearKernels linear_scalar(WeightType type);
#if defined(__x86_64__)
LinearKernels linear_avx2(WeightType type);
LinearKernels linear_avx512(WeightType type);
LinearKernels linear_avx512_bf16();      // of bfloat16 weights and tokens
LinearKernels linear_amx(bool rounded);  // of bfloat16 weights
#endif

constexpr size_t kScaleBlock = 32;  // weights of LinearInt8 along K that share a scale

// The same of LinearInt8. Tokens are to be rounded as `activations` says; a level may round them
// less.
LinearKernels linear_int8_kernels(CpuLevel level, Activations activations);

LinearKernels linear_int8_scalar();
#if defined(__x86_64__)
LinearKernels linear_int8_avx2(Activations activations);
void use_int8_panels_words(LinearKernels& kernels);  // for many tokens, not in mode exact
LinearKernels linear_int8_avx512();
LinearKernels linear_int8_vnni(Activations activations);
void use_int8_panels_vnni(Activations activations, LinearKernels& kernels);  // for many tokens
LinearKernels linear_int8_amx(Activations activations);
#endif

}  // namespace gptoss

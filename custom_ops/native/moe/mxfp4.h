// MXFP4 as the checkpoint stores it, and the one signature of the kernels that multiply with it.
//
// A row of weights is a run of blocks: 32 E2M1 values in 16 bytes, the low nibble first, and in
// another tensor one E8M0 scale byte for each block. Format: OCP Microscaling Formats (MX)
// Specification v1.0, 5.3.3 and 5.4.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "machine/activations.h"
#include "machine/cpu_features.h"

namespace gptoss {

constexpr size_t kBlock = 32;
constexpr size_t kBlockBytes = kBlock / 2;
constexpr float kLevels[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                               -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

// 2^(scale − 127) for every byte: 0 is 2^-127, which float32 holds as a subnormal, and 255 is NaN.
static inline float scale_factor(uint8_t scale) {
  const uint32_t bits = scale == 0     ? 0x00400000u
                        : scale == 255 ? 0x7fc00000u
                                       : uint32_t{scale} << 23;
  float factor;
  std::memcpy(&factor, &bits, sizeof factor);
  return factor;
}

// Consecutive rows of one expert's weight, where they lie in the mapped file: at any alignment.
struct Mxfp4Rows {
  const uint8_t* blocks;  // [count][width / 32][16]
  const uint8_t* scales;  // [count][width / 32]
  size_t count;           // a multiple of 32
  size_t width;           // a multiple of 32
};

// Some of the tokens that `pack` wrote to `data`.
struct PackedTokens {
  const std::byte* data;
  size_t first;  // a multiple of the kernel's tile
  size_t count;
};

// out[t][r] = Σ_k token[t][k] · weight[r][k]. A kernel first packs the tokens, which rounds them to
// its activation mode and orders them as its loops want them, and then multiplies rows with them,
// from any thread.
struct Mxfp4Kernel {
  // Tokens are packed in tiles of so many, and tokens that multiply together begin a tile.
  size_t tile;
  // Bytes of `tokens` packed tokens; the memory is aligned to 64 bytes.
  size_t (*packed_bytes)(size_t tokens, size_t width);
  // Packs x[0, count) as the values [first, first + count) of token number `token`; both are
  // multiples of 32.
  void (*pack)(const float* x, size_t first, size_t count, size_t width, size_t token,
               std::byte* packed);
  // Bytes that `multiply` needs to itself for `tokens` tokens, aligned to 64.
  size_t (*scratch_bytes)(size_t tokens, size_t width);
  // Writes out[t · stride + r].
  void (*multiply)(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte* scratch,
                   float* out, size_t stride);
};

// The kernels of a level: `few` for groups of up to so many tokens, `many` for larger ones.
struct Mxfp4Kernels {
  const Mxfp4Kernel* few;
  const Mxfp4Kernel* many;
  size_t few_tokens;
};

Mxfp4Kernels mxfp4_kernels(Activations activations, CpuLevel level);

// By level, each in a file of its own; the scalar one is the oracle of the others.
const Mxfp4Kernel& mxfp4_scalar(Activations activations);
const Mxfp4Kernel& mxfp4_amx(Activations activations);

// Those for a few tokens.
const Mxfp4Kernel& mxfp4_few_avx2(Activations activations);
const Mxfp4Kernel& mxfp4_few_avx512(Activations activations);
const Mxfp4Kernel& mxfp4_few_vnni(Activations activations);
const Mxfp4Kernel& mxfp4_few_vbmi(Activations activations);

// Those for many tokens.
const Mxfp4Kernel& mxfp4_many_avx2(Activations activations);
const Mxfp4Kernel& mxfp4_many_avx512(Activations activations);
const Mxfp4Kernel& mxfp4_many_vnni(Activations activations);
const Mxfp4Kernel& mxfp4_many_bf16();  // of mode bf16

}  // namespace gptoss

// MXFP4 times tokens in float32, written once for the vector widths: exact weights under every
// scale byte.
//
// `V` is a vector type with kLanes, load, add_product (a + b·c), sum, and levels (the values of
// kLanes nibbles). A token is packed block by block, the 16 values that meet low nibbles before the
// 16 that meet high ones.
//
// Included by files that are compiled for one level, each with a V of its own in an anonymous
// namespace: so every copy of this code stays in its file.
#pragma once

#include "machine/activations.h"
#include "moe/mxfp4.h"

namespace gptoss {

template <class V>
struct Mxfp4Float {
  using Vector = typename V::Vector;

  static constexpr size_t kPanel = 4;                // weight rows that a tile multiplies together
  static constexpr size_t kTokens = V::kTileTokens;  // tokens that a tile multiplies together

  static size_t packed_bytes(size_t tokens, size_t width) { return tokens * width * sizeof(float); }

  template <Activations mode>
  static void pack(const float* x, size_t first, size_t count, size_t width, size_t token,
                   std::byte* packed) {
    float* out = reinterpret_cast<float*>(packed) + token * width + first;
    for (size_t block = 0; block < count; block += kBlock) {
      float rounded[kBlock];
      round_activations(mode, x + block, kBlock, rounded);
      for (size_t i = 0; i < kBlockBytes; ++i) {
        out[block + i] = rounded[2 * i];
        out[block + kBlockBytes + i] = rounded[2 * i + 1];
      }
    }
  }

  // The values of kPanel weight rows, in the order of a token.
  static size_t scratch_bytes(size_t, size_t width) { return kPanel * width * sizeof(float); }

  static void multiply(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte* scratch,
                       float* out, size_t stride) {
    const float* x = reinterpret_cast<const float*>(tokens.data) + tokens.first * rows.width;
    multiply_many(rows, x, tokens.count, reinterpret_cast<float*>(scratch), out, stride);
  }

  // Decodes a panel of rows once and multiplies all tokens with it.
  static void multiply_many(const Mxfp4Rows& rows, const float* x, size_t tokens, float* panel,
                            float* out, size_t stride) {
    for (size_t r = 0; r < rows.count; r += kPanel) {
      decode_panel(rows, r, panel);
      size_t t = 0;
      for (; t + kTokens <= tokens; t += kTokens) {
        multiply_tile<kTokens>(panel, x + t * rows.width, rows.width, out + t * stride + r, stride);
      }
      for (; t < tokens; ++t)
        multiply_tile<1>(panel, x + t * rows.width, rows.width, out + t * stride + r, stride);
    }
  }

  static void decode_panel(const Mxfp4Rows& rows, size_t first, float* panel) {
    const size_t blocks = rows.width / kBlock;
    for (size_t block = first * blocks; block < (first + kPanel) * blocks;
         ++block, panel += kBlock) {
      const Vector scale = V::broadcast(scale_factor(rows.scales[block]));
      for (size_t i = 0; i < kBlockBytes; i += V::kLanes) {
        Vector low, high;
        V::levels(rows.blocks + block * kBlockBytes + i, low, high);
        V::store(panel + i, V::product(low, scale));
        V::store(panel + kBlockBytes + i, V::product(high, scale));
      }
    }
  }

  template <size_t tokens>
  static void multiply_tile(const float* panel, const float* x, size_t width, float* out,
                            size_t stride) {
    Vector sums[kPanel][tokens];
    for (size_t r = 0; r < kPanel; ++r) {
      for (size_t t = 0; t < tokens; ++t) sums[r][t] = V::zero();
    }
    for (size_t i = 0; i < width; i += V::kLanes) {
      Vector weights[kPanel];
      for (size_t r = 0; r < kPanel; ++r) weights[r] = V::load(panel + r * width + i);
      for (size_t t = 0; t < tokens; ++t) {
        const Vector value = V::load(x + t * width + i);
        for (size_t r = 0; r < kPanel; ++r)
          sums[r][t] = V::add_product(sums[r][t], weights[r], value);
      }
    }
    for (size_t r = 0; r < kPanel; ++r) {
      for (size_t t = 0; t < tokens; ++t) out[t * stride + r] = V::sum(sums[r][t]);
    }
  }

  template <Activations mode>
  static constexpr Mxfp4Kernel kKernel = {1, packed_bytes, pack<mode>, scratch_bytes, multiply};

  static const Mxfp4Kernel& kernel(Activations activations) {
    switch (activations) {
      case Activations::bf16:
        return kKernel<Activations::bf16>;
      case Activations::int8:
        return kKernel<Activations::int8>;
      default:
        return kKernel<Activations::exact>;
    }
  }
};

}  // namespace gptoss

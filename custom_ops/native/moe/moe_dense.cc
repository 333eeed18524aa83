#include "moe/moe_dense.h"

#include <algorithm>

#include "linear/linear_tokens.h"
#include "machine/activations.h"
#include "machine/tasks.h"

namespace gptoss {

size_t rows_per_task(const DenseWeights& weights, bool few, size_t groups) {
  constexpr size_t kUnit = 64, kRunsACore = 8;
  if (!few) return kUnit;
  return rows_of_run(groups * weights.outputs, weights.width * bytes_of(weights.type), kUnit,
                     kRunsACore);
}

Activations mode_of_rows(Activations activations) {
  return activations == Activations::exact ? Activations::exact : Activations::bf16;
}

void DenseColumns::pack(const float* x, size_t first, size_t count, const TokenPlace& place,
                        std::byte* packed) const noexcept {
  float* token = reinterpret_cast<float*>(packed) + (place.first + place.index) * weights_.width;
  round_activations(activations_, x, count, token + first);
}

void DenseColumns::multiply(size_t expert, size_t first, size_t outputs, const PackedTokens& tokens,
                            std::byte*, float* out, size_t stride) const noexcept {
  const size_t bytes = bytes_of(weights_.type);
  const std::byte* column = weights_.first + expert * weights_.bytes_of_expert() + first * bytes;
  const float* x = reinterpret_cast<const float*>(tokens.data) + tokens.first * weights_.width;
  multiply_({column, weights_.outputs * bytes, outputs, weights_.width},
            {x, weights_.width, tokens.count}, out, stride);
}

DenseRows::DenseRows(const LinearKernels& kernels, Activations activations,
                     const DenseWeights& weights, size_t outputs_per_task)
    : kernels_(kernels),
      activations_(activations),
      weights_(weights),
      outputs_per_task_(outputs_per_task),
      vector_lanes_(lanes_of(kernels.vector_format, weights.width)),
      blocked_lanes_(lanes_of(kernels.blocked_format, weights.width)),
      lanes_(std::max(vector_lanes_, blocked_lanes_)) {}

size_t DenseRows::scratch_bytes(size_t) const noexcept {
  return kernels_.blocked_product == nullptr ? 0 : kPanelFloats * sizeof(float);
}

bool DenseRows::few(size_t tokens) const noexcept {
  return tokens <= kernels_.vector_tokens || kernels_.blocked_product == nullptr;
}

size_t DenseRows::tile_width(size_t tokens) const noexcept {
  const size_t tiles = (tokens + kernels_.tile_width - 1) / kernels_.tile_width;
  return (tokens + tiles - 1) / tiles;
}

// The tokens of a small group lie one after another; those of a large one are gathered in tiles
// (TokenTiles).
void DenseRows::pack(const float* x, size_t first, size_t count, const TokenPlace& place,
                     std::byte* packed) const noexcept {
  float* group = reinterpret_cast<float*>(packed) + place.first * lanes_;
  if (few(place.count)) {
    float* token = group + place.index * vector_lanes_;
    return format_piece(x, first, count, weights_.width, kernels_.vector_format, activations_,
                        token, 1);
  }
  const size_t width = tile_width(place.count);
  float* token = group + place.index / width * width * blocked_lanes_ + place.index % width;
  format_piece(x, first, count, weights_.width, kernels_.blocked_format, activations_, token,
               width);
}

void DenseRows::multiply(size_t expert, size_t first, size_t outputs, const PackedTokens& tokens,
                         std::byte* scratch, float* out, size_t stride) const noexcept {
  LinearCall call{};
  call.row_bytes = weights_.width * bytes_of(weights_.type);
  call.weight = reinterpret_cast<const unsigned char*>(weights_.row(expert, first));
  call.x = reinterpret_cast<const float*>(tokens.data) + tokens.first * lanes_;
  call.y = out;
  call.tokens = tokens.count;
  call.depth = weights_.width;
  call.rows = stride;
  if (few(tokens.count)) {
    call.lanes = vector_lanes_;
    return kernels_.matrix_vector(call, 0, outputs);
  }
  call.lanes = blocked_lanes_;
  const size_t width = tile_width(tokens.count);
  const TokenTiles tiles{call.x, width, (tokens.count + width - 1) / width};
  auto* panel = reinterpret_cast<float*>(scratch);
  for (size_t begin = 0; begin < outputs; begin += kBlockRows) {
    kernels_.blocked_product(call, tiles, begin, std::min(begin + kBlockRows, outputs), panel);
  }
}

}  // namespace gptoss

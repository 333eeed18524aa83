// The two layouts of dense experts.
#pragma once

#include "linear/linear_columns.h"
#include "linear/linear_kernels.h"
#include "moe/moe_projection.h"

namespace gptoss {

// One of the two weights of every expert.
struct DenseWeights {
  const std::byte* first;  // in the mapped file: at any address
  WeightType type;
  size_t outputs, width;

  size_t bytes_of_expert() const noexcept { return outputs * width * bytes_of(type); }
};

// (E, width, outputs), as Hugging Face stores gpt-oss's.
class DenseColumns final : public Projection {
 public:
  DenseColumns(MultiplyColumns multiply, Activations activations, const DenseWeights& weights,
               size_t outputs_per_task)
      : multiply_(multiply),
        activations_(activations),
        weights_(weights),
        outputs_per_task_(outputs_per_task) {}

  size_t tile() const noexcept override { return 1; }
  size_t packed_bytes(size_t tokens) const noexcept override {
    return tokens * weights_.width * sizeof(float);
  }
  size_t scratch_bytes(size_t) const noexcept override { return 0; }
  size_t outputs_per_task() const noexcept override { return outputs_per_task_; }
  void pack(const float* x, size_t first, size_t count, const TokenPlace& place,
            std::byte* packed) const noexcept override;
  void multiply(size_t expert, size_t first, size_t outputs, const PackedTokens& tokens,
                std::byte* scratch, float* out, size_t stride) const noexcept override;

 private:
  MultiplyColumns multiply_;
  Activations activations_;
  DenseWeights weights_;
  size_t outputs_per_task_;
};

// (E, outputs, width), as a Linear stores its weight: by Linear's own kernels.
class DenseRows final : public Projection {
 public:
  // The kernels are those of `activations`, exact or bf16.
  DenseRows(const LinearKernels& kernels, Activations activations, const DenseWeights& weights,
            size_t outputs_per_task);

  size_t tile() const noexcept override { return kernels_.tile_width; }
  size_t packed_bytes(size_t tokens) const noexcept override {
    return tokens * lanes_ * sizeof(float);
  }
  size_t scratch_bytes(size_t) const noexcept override;
  size_t outputs_per_task() const noexcept override { return outputs_per_task_; }
  void pack(const float* x, size_t first, size_t count, const TokenPlace& place,
            std::byte* packed) const noexcept override;
  void multiply(size_t expert, size_t first, size_t outputs, const PackedTokens& tokens,
                std::byte* scratch, float* out, size_t stride) const noexcept override;

 private:
  bool few(size_t tokens) const noexcept;
  size_t tile_width(size_t tokens) const noexcept;  // of tiles of nearly equal width

  const LinearKernels& kernels_;
  Activations activations_;
  DenseWeights weights_;
  size_t outputs_per_task_;
  size_t vector_lanes_, blocked_lanes_, lanes_;  // of a token in either format, and room for both
};

}  // namespace gptoss

// The two layouts of dense experts.
#pragma once

#include "linear/linear_columns.h"
#include "linear/linear_kernels.h"
#include "moe/moe_projection.h"

namespace gptoss {

// One of the two weights of every expert. Addresses in mapped files are of any alignment.
struct DenseWeights {
  const std::byte* first;  // of stacked experts
  WeightType type;
  size_t outputs, width;
  // Or the matrices of each expert, `apart` of them with equally many rows, one expert behind the
  // other.
  const std::byte* const* matrices = nullptr;
  size_t apart = 1;

  size_t bytes_of_expert() const noexcept { return outputs * width * bytes_of(type); }

  // Where an output's row begins, in a layout by rows.
  const std::byte* row(size_t expert, size_t output) const noexcept {
    const size_t row_bytes = width * bytes_of(type);
    if (matrices == nullptr) return first + expert * bytes_of_expert() + output * row_bytes;
    const size_t rows = outputs / apart;
    return matrices[expert * apart + output / rows] + output % rows * row_bytes;
  }
};

// Rows of weights that a task takes: as many as are read fast in one run while few tokens, in
// `groups` of experts, wait for memory.
size_t rows_per_task(const DenseWeights& weights, bool few, size_t groups);

// The mode in which Linear's kernels multiply: they know two, and 8 bits would be no faster on
// weights of 16.
Activations mode_of_rows(Activations activations);

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

// (E, outputs, width), as a Linear stores its weight, stacked or apart: by Linear's own kernels.
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

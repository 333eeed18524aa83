// One of the two weights of every expert, whatever its layout: y = x · Wᵀ for some of an expert's
// outputs.
#pragma once

#include <cstddef>

#include "moe/mxfp4.h"

namespace gptoss {

// A token among those of its group, which multiply together.
struct TokenPlace {
  size_t first;  // the group's first token among all packed ones
  size_t index;  // of the token in the group
  size_t count;  // of the group
};

class Projection {
 public:
  virtual ~Projection() = default;

  // As in Mxfp4Kernel; `outputs` of any expert, from `first` on, written to out[t · stride + output
  // − first].
  virtual size_t tile() const noexcept = 0;
  virtual size_t packed_bytes(size_t tokens) const noexcept = 0;
  virtual void pack(const float* x, size_t first, size_t count, const TokenPlace& place,
                    std::byte* packed) const noexcept = 0;
  virtual size_t scratch_bytes(size_t tokens) const noexcept = 0;
  virtual void multiply(size_t expert, size_t first, size_t outputs, const PackedTokens& tokens,
                        std::byte* scratch, float* out, size_t stride) const noexcept = 0;

  // Outputs that one task computes: a multiple of 64, so that a task's activations fill blocks
  // of 32.
  virtual size_t outputs_per_task() const noexcept = 0;
};

}  // namespace gptoss

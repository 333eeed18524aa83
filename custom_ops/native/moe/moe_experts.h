// A routed mixture of experts, given how to multiply with their weights: an activation between two
// projections.
#pragma once

#include "abi/context.h"
#include "moe/moe_attributes.h"
#include "moe/moe_projection.h"
#include "moe/moe_routing.h"

namespace gptoss {

// Up to so many tokens, a call with dense weights waits for memory.
constexpr size_t kFewTokens = 8;

// Pointers are to whole tensors: N tokens, Hd hidden size, E experts, I expert width.
struct MoELayer {
  size_t tokens, hidden_size, width;
  const float* hidden;        // (N, Hd)
  const float* gate_up_bias;  // (E, 2I) or null
  const float* down_bias;     // (E, Hd) or null
  const Projection& gate_up;  // Hd → 2I, or I where the activation has no gate
  const Projection& down;     // I → Hd
  bool few;                   // few tokens an expert: reading weights takes most of the time
};

// Writes output (N, Hd): the sum of each token's experts, weighted by their shares.
void run_experts(const Context& context, const MoELayer& layer, const MoEAttributes& attributes,
                 const Routing& routing, float* output);

}  // namespace gptoss

// Which experts each token goes to, and the tokens of each expert together.
#pragma once

#include <cstddef>
#include <vector>

namespace gptoss {

// One token at one of its experts.
struct Slot {
  size_t token;
  float share;
};

// The tokens of one expert: slots [first, first + count).
struct ExpertGroup {
  size_t expert;
  size_t first;
  size_t count;
};

struct Routing {
  std::vector<Slot> slots;          // by expert, then by token
  std::vector<ExpertGroup> groups;  // by expert; only experts that some token chose
};

// logits (tokens, experts), none of them NaN, and 1 ≤ top_k ≤ experts. Ties go to the lower expert,
// as ONNX TopK. Shares are a softmax over the chosen logits where `normalize`, else those of the
// softmax over all experts.
Routing route(const float* logits, size_t tokens, size_t experts, size_t top_k, bool normalize);

}  // namespace gptoss

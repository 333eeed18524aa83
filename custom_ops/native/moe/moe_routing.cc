#include "moe/moe_routing.h"

#include <cmath>

namespace gptoss {
namespace {

// Writes the experts of the top_k largest logits, largest first. Inserting in the order of experts,
// and only before strictly smaller ones, keeps ties in that order.
void choose(const float* logits, size_t experts, size_t top_k, size_t* chosen) {
  size_t held = 0;
  for (size_t expert = 0; expert < experts; ++expert) {
    size_t place = held;
    while (place > 0 && logits[expert] > logits[chosen[place - 1]]) --place;
    if (place == top_k) continue;
    if (held < top_k) ++held;
    for (size_t i = held - 1; i > place; --i) chosen[i] = chosen[i - 1];
    chosen[place] = expert;
  }
}

// Writes the shares of the chosen experts, of which the first has the largest logit.
void softmax(const float* logits, size_t experts, const size_t* chosen, size_t top_k,
             bool normalize, float* shares) {
  const float largest = logits[chosen[0]];
  float sum = 0;
  for (size_t i = 0; i < top_k; ++i) {
    shares[i] = std::exp(logits[chosen[i]] - largest);
    sum += shares[i];
  }
  if (!normalize) {
    sum = 0;
    for (size_t expert = 0; expert < experts; ++expert) sum += std::exp(logits[expert] - largest);
  }
  for (size_t i = 0; i < top_k; ++i) shares[i] /= sum;
}

}  // namespace

Routing route(const float* logits, size_t tokens, size_t experts, size_t top_k, bool normalize) {
  std::vector<size_t> chosen(tokens * top_k);
  std::vector<float> shares(tokens * top_k);
  std::vector<size_t> begins(experts + 1);  // begins[e]: the first slot of expert e, once counted
  for (size_t token = 0; token < tokens; ++token) {
    choose(logits + token * experts, experts, top_k, &chosen[token * top_k]);
    softmax(logits + token * experts, experts, &chosen[token * top_k], top_k, normalize,
            &shares[token * top_k]);
    for (size_t i = 0; i < top_k; ++i) ++begins[chosen[token * top_k + i] + 1];
  }
  Routing routing;
  for (size_t expert = 0; expert < experts; ++expert) {
    if (begins[expert + 1] > 0)
      routing.groups.push_back({expert, begins[expert], begins[expert + 1]});
    begins[expert + 1] += begins[expert];
  }
  routing.slots.resize(tokens * top_k);
  for (size_t i = 0; i < tokens * top_k; ++i)
    routing.slots[begins[chosen[i]]++] = {i / top_k, shares[i]};
  return routing;
}

}  // namespace gptoss

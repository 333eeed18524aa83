// The steps are those of runtime/sampling.py, and of Hugging Face transformers.
#include "gptoss.h"

namespace gptoss {

Sampler::Sampler(const Sampling& sampling, const Tokens& prompt, int64_t vocab)
    : sampling_(sampling), seen_(vocab), random_(sampling.seed ? *sampling.seed : std::random_device()()) {
  const auto& [penalty, temperature, top_k, top_p, min_p, seed, stop_tokens] = sampling;
  expect(penalty > 0 && penalty < INFINITY, "repetition_penalty", std::to_string(penalty), "a finite number above 0");
  expect(temperature >= 0 && temperature < INFINITY, "temperature", std::to_string(temperature), "finite, from 0");
  expect(top_k >= 0, "top_k", std::to_string(top_k), "0 (off) or more");
  expect(top_p > 0 && top_p <= 1, "top_p", std::to_string(top_p), "above 0, at most 1");
  expect(min_p >= 0 && min_p <= 1, "min_p", std::to_string(min_p), "0 to 1");
  for (const int64_t token : prompt) seen_.at(token) = true;
}

int64_t Sampler::choose(const float* logits) {
  std::vector<float> scores(logits, logits + seen_.size());
  for (const float logit : scores) if (!std::isfinite(logit)) throw Error("logits: found one that is not finite");
  const auto penalty = static_cast<float>(sampling_.repetition_penalty);
  for (size_t token = 0; penalty != 1 && token < scores.size(); ++token)
    if (seen_[token]) scores[token] = scores[token] < 0 ? scores[token] * penalty : scores[token] / penalty;
  const auto best = std::max_element(scores.begin(), scores.end());  // the first among equals
  const int64_t token = sampling_.temperature == 0 ? best - scores.begin() : draw(scores, *best);
  seen_[token] = true;
  return token;
}

int64_t Sampler::draw(std::vector<float>& scores, float top) {
  const auto& [penalty, temperature, top_k, top_p, min_p, seed, stop_tokens] = sampling_;
  for (float& score : scores) score = static_cast<float>((score - top) / temperature);  // 0 is the most probable
  float least = -INFINITY;
  if (top_k > 0 && top_k < static_cast<int64_t>(scores.size())) {  // with what ties with the last
    std::vector<float> ordered = scores;
    std::nth_element(ordered.begin(), ordered.begin() + top_k - 1, ordered.end(), std::greater<>());
    least = ordered[top_k - 1];
  }
  std::vector<std::pair<double, int64_t>> candidates;  // weight, and token below 0: the lower goes first among equals
  double nucleus = 0, total = 0;
  for (size_t token = 0; token < scores.size(); ++token) {
    const double weight = scores[token] >= least ? std::exp(static_cast<double>(scores[token])) : 0;
    nucleus += top_p * weight;
    if (weight > 0 && weight >= min_p) candidates.emplace_back(weight, -static_cast<int64_t>(token));
  }
  if (top_p < 1) {  // by heap: mostly a few hundred of a vocabulary hold the nucleus
    auto rest = candidates.end();
    std::make_heap(candidates.begin(), rest);
    for (; nucleus > 0 && rest != candidates.begin(); nucleus -= rest->first) std::pop_heap(candidates.begin(), rest--);
    candidates.erase(candidates.begin(), rest);
  }
  for (const auto& [weight, token] : candidates) total += weight;
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * total;  // uniform in [0, total)
  for (const auto& [weight, token] : candidates) if ((left -= weight) < 0) return -token;
  return -candidates.back().second;  // rounding left a crumb
}

}  // namespace gptoss

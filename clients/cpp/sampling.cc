// The steps are those of runtime/sampling.py, and of Hugging Face transformers.
#include <algorithm>
#include <cmath>

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
  scores_.assign(logits, logits + seen_.size());
  for (const float logit : scores_) if (!std::isfinite(logit)) throw Error("logits: found one that is not finite");
  const auto penalty = static_cast<float>(sampling_.repetition_penalty);
  for (size_t token = 0; penalty != 1 && token < scores_.size(); ++token)
    if (seen_[token]) scores_[token] = scores_[token] < 0 ? scores_[token] * penalty : scores_[token] / penalty;
  const auto best = std::max_element(scores_.begin(), scores_.end());  // the first among equals
  const int64_t token = sampling_.temperature == 0 ? best - scores_.begin() : draw(*best);
  seen_[token] = true;
  return token;
}

int64_t Sampler::draw(float top) {
  candidates_.clear();
  for (float& score : scores_) {
    score = static_cast<float>((score - top) / sampling_.temperature);  // 0 is the most probable
    candidates_.push_back(&score - scores_.data());
  }
  const auto less = [&](int64_t a, int64_t b) { return scores_[a] != scores_[b] ? scores_[a] < scores_[b] : a > b; };
  const auto keep_from = [&](float least) {
    const auto below = [&](int64_t token) { return scores_[token] < least; };
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), below), candidates_.end());
  };
  const auto weight = [&](int64_t token) { return std::exp(static_cast<double>(scores_[token])); };
  const auto total = [&] {
    double sum = 0;
    for (const int64_t token : candidates_) sum += weight(token);
    return sum;
  };
  if (sampling_.top_k > 0 && sampling_.top_k < static_cast<int64_t>(candidates_.size())) {
    const auto last = candidates_.end() - sampling_.top_k;
    std::nth_element(candidates_.begin(), last, candidates_.end(), less);
    keep_from(scores_[*last]);  // with what ties with the last
  }
  if (sampling_.top_p < 1) {  // by heap: mostly a few hundred of a vocabulary hold the nucleus
    double missing = sampling_.top_p * total();
    auto nucleus = candidates_.end();
    std::make_heap(candidates_.begin(), nucleus, less);
    for (; missing > 0 && nucleus != candidates_.begin(); missing -= weight(*nucleus))
      std::pop_heap(candidates_.begin(), nucleus--, less);
    candidates_.erase(candidates_.begin(), nucleus);
  }
  if (sampling_.min_p > 0) keep_from(static_cast<float>(std::log(sampling_.min_p)));
  std::sort(candidates_.begin(), candidates_.end());  // a seed draws alike with every standard library
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * total();  // uniform in [0, total)
  for (const int64_t token : candidates_)
    if ((left -= weight(token)) < 0) return token;
  return *std::max_element(candidates_.begin(), candidates_.end(), less);  // rounding left a crumb
}

}  // namespace gptoss

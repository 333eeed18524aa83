#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "text.h"

namespace gptoss {

using Limits = std::numeric_limits<double>;

// A number as a person writes it: 1e-46 is not 0.000000.
static std::string shown(double value) {
  return std::isfinite(value) ? JsonText(value).text : std::to_string(value);
}

Sampler::Sampler(const Sampling& sampling, const Tokens& seen, int64_t vocab)
    : sampling_(sampling),
      seen_(vocab),
      random_(sampling.seed ? *sampling.seed : std::random_device()()) {
  const auto& [penalty, temperature, top_k, top_p, min_p, seed, stop_tokens] = sampling_;
  expect(penalty > 0 && penalty <= Limits::max(), "repetition_penalty", shown(penalty),
         "a finite number above 0");
  expect(temperature >= 0 && temperature <= Limits::max(), "temperature", shown(temperature),
         "a finite number, 0 or more");
  expect(top_k >= 0, "top_k", std::to_string(top_k), "0 (off) or more");
  expect(top_p > 0 && top_p <= 1, "top_p", shown(top_p), "above 0, at most 1");
  expect(min_p >= 0 && min_p <= 1, "min_p", shown(min_p), "0 to 1");
  for (const int64_t token : stop_tokens.value_or(Tokens())) {
    expect(token >= 0, "stop_tokens", std::to_string(token), "token ids, 0 or more");
  }
  for (const int64_t token : seen) seen_.at(token) = true;
}

int64_t Sampler::choose(const float* logits) {
  std::vector<double> scores(logits, logits + seen_.size());
  double largest = -Limits::infinity();
  for (const double score : scores) {
    if (std::isnan(score) || score > largest) largest = score;  // a NaN stays
  }
  if (!std::isfinite(largest)) {
    throw Error("logits: found a largest one of " + shown(largest) +
                ", expected a finite one; verify the package");
  }
  penalize(scores);
  const auto best = std::max_element(scores.begin(), scores.end());  // the first among equals
  const bool is_greedy = sampling_.temperature == 0;
  const int64_t token = is_greedy ? best - scores.begin() : draw(scores, *best);
  seen_[token] = true;
  return token;
}

void Sampler::penalize(std::vector<double>& scores) const {
  const double penalty = sampling_.repetition_penalty;
  if (penalty == 1) return;
  for (size_t token = 0; token < scores.size(); ++token) {
    double& score = scores[token];
    if (!seen_[token] || std::isinf(score)) continue;
    score = score < 0 ? score * penalty : score / penalty;
    score = std::clamp(score, Limits::lowest(), Limits::max());  // infinities have no difference
  }
}

int64_t Sampler::draw(std::vector<double>& scores, double top) {
  const auto& [penalty, temperature, top_k, top_p, min_p, seed, stop_tokens] = sampling_;
  // The most probable token has 0, so nothing overflows; -inf is a probability of 0.
  for (double& score : scores) score = (score - top) / temperature;

  double least = -Limits::infinity();
  if (top_k > 0 && top_k < static_cast<int64_t>(scores.size())) {
    std::vector<double> ordered = scores;
    const auto last = ordered.begin() + (top_k - 1);
    std::nth_element(ordered.begin(), last, ordered.end(), std::greater<>());
    least = *last;  // what ties with it stays
  }

  // Weight, and token below 0: among equals the lower token goes first.
  std::vector<std::pair<double, int64_t>> candidates;
  double sum = 0;
  for (size_t token = 0; token < scores.size(); ++token) {
    if (scores[token] < least) continue;
    const double weight = std::exp(scores[token]);
    if (weight == 0) continue;
    candidates.emplace_back(weight, -static_cast<int64_t>(token));
    sum += weight;
  }
  if (top_p < 1) {
    // By heap, the most probable first: mostly a few hundred of a vocabulary hold the nucleus.
    auto rest = candidates.end();
    std::make_heap(candidates.begin(), rest);
    double missing = top_p * sum;
    while (missing > 0 && rest != candidates.begin()) {
      std::pop_heap(candidates.begin(), rest);
      --rest;
      missing -= rest->first;
    }
    candidates.erase(candidates.begin(), rest);
  }
  const double bound = std::log(min_p);  // -inf for 0
  const auto is_improbable = [&](const std::pair<double, int64_t>& candidate) {
    return scores[-candidate.second] < bound;
  };
  const auto improbable = std::remove_if(candidates.begin(), candidates.end(), is_improbable);
  candidates.erase(improbable, candidates.end());

  double total = 0;
  for (const auto& [weight, token] : candidates) total += weight;
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;  // in [0, 1)
  double left = uniform * total;
  for (const auto& [weight, token] : candidates) {
    left -= weight;
    if (left < 0) return -token;
  }
  return -candidates.back().second;  // rounding left a crumb
}

}  // namespace gptoss

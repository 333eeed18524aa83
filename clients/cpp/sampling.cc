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
  const bool is_greedy = sampling_.temperature == 0;
  const int64_t token = is_greedy ? most_probable(logits) : draw(candidates(logits));
  seen_[token] = true;
  return token;
}

int64_t Sampler::most_probable(const float* logits) const {
  const std::vector<double> scores = penalized(logits);
  const auto best = std::max_element(scores.begin(), scores.end());  // the first among equals
  return best - scores.begin();
}

std::vector<double> Sampler::penalized(const float* logits) const {
  std::vector<double> scores(logits, logits + seen_.size());
  double largest = -Limits::infinity();
  for (const double score : scores) {
    if (std::isnan(score) || score > largest) largest = score;  // a NaN stays
  }
  if (!std::isfinite(largest)) {
    throw Error("logits: found a largest one of " + shown(largest) +
                ", expected a finite one; verify the package");
  }
  const double penalty = sampling_.repetition_penalty;
  if (penalty == 1) return scores;
  for (size_t token = 0; token < scores.size(); ++token) {
    double& score = scores[token];
    if (!seen_[token] || std::isinf(score)) continue;
    score = score < 0 ? score * penalty : score / penalty;
    score = std::clamp(score, Limits::lowest(), Limits::max());  // infinities have no difference
  }
  return scores;
}

std::vector<Candidate> Sampler::candidates(const float* logits) const {
  const auto& [penalty, temperature, top_k, top_p, min_p, seed, stop_tokens] = sampling_;
  std::vector<double> scores = penalized(logits);
  const double top = *std::max_element(scores.begin(), scores.end());
  // The most probable token has 0, so nothing overflows; -inf is a probability of 0.
  for (double& score : scores) score = (score - top) / temperature;

  double least = -Limits::infinity();
  if (top_k > 0 && top_k < static_cast<int64_t>(scores.size())) {
    std::vector<double> ordered = scores;
    const auto last = ordered.begin() + (top_k - 1);
    std::nth_element(ordered.begin(), last, ordered.end(), std::greater<>());
    least = *last;  // what ties with it stays
  }
  std::vector<Candidate> kept;
  for (size_t token = 0; token < scores.size(); ++token) {
    const double weight = scores[token] < least ? 0 : std::exp(scores[token]);
    if (weight > 0) kept.push_back({weight, static_cast<int64_t>(token)});
  }
  if (top_p < 1) keep_nucleus(kept, top_p);
  const double bound = std::log(min_p);  // -inf for 0
  const auto is_improbable = [&](const Candidate& each) { return scores[each.token] < bound; };
  kept.erase(std::remove_if(kept.begin(), kept.end(), is_improbable), kept.end());
  return kept;
}

void Sampler::keep_nucleus(std::vector<Candidate>& kept, double top_p) {
  double sum = 0;
  for (const Candidate& each : kept) sum += each.weight;
  // By heap, the most probable first: mostly a few hundred of a vocabulary hold the nucleus.
  const auto is_after = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight < b.weight : a.token > b.token;
  };
  auto rest = kept.end();
  std::make_heap(kept.begin(), rest, is_after);
  double missing = top_p * sum;
  do {
    std::pop_heap(kept.begin(), rest, is_after);
    --rest;
    missing -= rest->weight;
  } while (missing > 0 && rest != kept.begin());
  kept.erase(kept.begin(), rest);
}

int64_t Sampler::draw(const std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& each : candidates) total += each.weight;
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;  // in [0, 1)
  double left = uniform * total;
  for (const Candidate& each : candidates) {
    left -= each.weight;
    if (left < 0) return each.token;
  }
  return candidates.back().token;  // rounding left a crumb
}

}  // namespace gptoss

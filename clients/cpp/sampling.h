// How the next token is chosen. The stages, and that they are in doubles, are those of
// runtime/sampling.py and of the other clients.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "package.h"

namespace gptoss {

struct Sampling {                     // in the order of the stages
  double repetition_penalty = 1;      // of tokens that the sequence holds already; 1: none
  double temperature = 0;             // 0 takes the most probable token
  int64_t top_k = 0;                  // keeps the k most probable, and ties; 0: all
  double top_p = 1;                   // keeps the fewest that together are this probable; 1: all
  double min_p = 0;                   // keeps those this fraction as probable as the first; 0: all
  std::optional<uint64_t> seed;       // none draws a fresh one
  std::optional<Tokens> stop_tokens;  // none takes the package's
};

// A token that may be drawn; its probability is in proportion to its weight.
struct Candidate {
  double weight;
  int64_t token;
};

// Chooses the tokens of one sequence.
class Sampler {
 public:
  // `seen`: the tokens that the sequence holds, of a vocabulary of `vocab`.
  Sampler(const Sampling& sampling, const Tokens& seen, int64_t vocab);
  // The next token, from logits (vocab). Throws unless the largest logit is finite.
  int64_t choose(const float* logits);
  // The tokens that may be drawn from logits (vocab), at a temperature above 0.
  std::vector<Candidate> candidates(const float* logits) const;

 private:
  int64_t most_probable(const float* logits) const;
  std::vector<double> penalized(const float* logits) const;
  static void keep_nucleus(std::vector<Candidate>& kept, double top_p);
  int64_t draw(const std::vector<Candidate>& candidates);

  const Sampling sampling_;
  std::vector<bool> seen_;  // by token
  std::mt19937_64 random_;
};

}  // namespace gptoss

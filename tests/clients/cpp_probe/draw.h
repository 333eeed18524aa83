// Draws tokens from logits that come on stdin.
#pragma once

#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

#include "gptoss.h"

inline gptoss::Tokens ids_of(const std::string& text) {
  gptoss::Tokens ids;
  std::istringstream words(text);
  for (std::string id; std::getline(words, id, ',');) ids.push_back(std::stoll(id));
  return ids;
}

inline std::string read_input() {
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

// A sampler of the settings SEED T K P MIN R SEEN.
inline gptoss::Sampler sampler_of(char** words, int64_t vocab) {
  gptoss::Sampling sampling;
  sampling.seed = std::stoull(words[0]);
  sampling.temperature = std::strtod(words[1], nullptr);  // subnormal ones too
  sampling.top_k = std::stoll(words[2]);
  sampling.top_p = std::stod(words[3]);
  sampling.min_p = std::stod(words[4]);
  sampling.repetition_penalty = std::strtod(words[5], nullptr);
  const bool is_none = words[6] == std::string("-");
  return gptoss::Sampler(sampling, is_none ? gptoss::Tokens() : ids_of(words[6]), vocab);
}

inline void draw(char** words) {
  const std::string bytes = read_input();
  const auto* logits = reinterpret_cast<const float*>(bytes.data());
  gptoss::Sampler sampler = sampler_of(words, static_cast<int64_t>(bytes.size() / sizeof(float)));
  for (int left = std::stoi(words[7]); left > 0; --left) {
    std::cout << sampler.choose(logits) << "\n";
  }
}

inline void candidates(char** words) {
  const std::string bytes = read_input();
  const auto* logits = reinterpret_cast<const float*>(bytes.data());
  const auto sampler = sampler_of(words, static_cast<int64_t>(bytes.size() / sizeof(float)));
  for (const gptoss::Candidate& each : sampler.candidates(logits)) {
    std::cout << each.token << " " << gptoss::JsonText(each.weight).text << "\n";
  }
}

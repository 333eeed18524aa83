#include <algorithm>
#include <chrono>
#include <cmath>

#include "gptoss.h"

namespace gptoss {

static constexpr double kLimit = 1e-3;

// Widens the largest difference so far; NaN stays, and never passes.
static void widen(double& largest, double found, double expected) {
  const double difference = std::abs(found - expected);
  if (std::isnan(difference) || difference > largest) largest = difference;
}

static double logsumexp(const float* logits, int64_t vocab) {
  const double top = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t token = 0; token < vocab; ++token) sum += std::exp(logits[token] - top);
  return top + std::log(sum);
}

// One case of the verdict; `path` is its place in the golden document.
static std::pair<bool, std::string> run_case(const Session& session, const Json& golden, const std::string& path) {
  const auto tokens = [&](const std::string& name) { return golden.list<int64_t>(path + name); };
  const Tokens prompt = tokens("token_ids"), greedy = tokens("greedy"), positions = tokens("positions");
  const int64_t vocab = session.package.vocab, count = static_cast<int64_t>(greedy.size());
  KVCache cache(session, static_cast<int64_t>(prompt.size()) + count);
  const std::vector<float> logits = session.forward(cache, prompt, positions);
  double logits_abs = 0, sum_abs = 0;
  for (size_t row = 0; row < positions.size(); ++row) {
    const std::string at = "/" + std::to_string(row);
    const auto compare = [&](const Tokens& indices, const std::vector<double>& expected) {
      for (size_t i = 0; i < indices.size(); ++i)
        widen(logits_abs, logits.at(row * vocab + indices[i]), expected.at(i));
    };
    compare(tokens("top_indices" + at), golden.list<double>(path + "top_logits" + at));
    compare(golden.list<int64_t>("sampled_indices"), golden.list<double>(path + "sampled_logits" + at));
    widen(sum_abs, logsumexp(&logits[row * vocab], vocab), golden.get<double>(path + "logsumexp" + at));
  }
  Sampling greedily;
  greedily.stop_tokens = Tokens();
  size_t equal = 0;
  std::string note;
  cache.reset();
  try {
    session.generate(cache, prompt, greedily, count,
                     [&](int64_t token) { return token == greedy[equal] && ++equal < greedy.size(); });
  } catch (const Error& error) {  // logits that are not finite fail the case, not the program
    note = error.what();
  }
  const bool passed = logits_abs <= kLimit && sum_abs <= kLimit && equal == greedy.size();
  return {passed, json_object({{"name", json_string(golden.get<std::string>(path + "name"))},
                               {"passed", passed ? "true" : "false"}, {"positions", json_number(positions.size())},
                               {"max_abs", json_number(logits_abs)}, {"logsumexp_abs", json_number(sum_abs)},
                               {"greedy_tokens", json_number(count)}, {"greedy_equal", json_number(equal)},
                               {"note", json_string(note)}})};
}

std::pair<bool, std::string> verify(const Session& session) {
  const auto begin = std::chrono::steady_clock::now();
  const Json golden = Json::read(session.package.folder / "golden/golden.json");
  bool passed = true;
  std::string cases;
  for (size_t i = 0; i < golden.get<Json::Size>("cases"); ++i) {
    const auto [case_passed, text] = run_case(session, golden, "cases/" + std::to_string(i) + "/");
    passed = passed && case_passed;
    cases += (i == 0 ? "" : ", ") + text;
  }
  expect(!cases.empty(), golden.file, "no cases", "at least one");
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  return {passed, json_object({{"format", json_string("gptoss-onnx-verdict")}, {"format_version", "1"},
                               {"passed", passed ? "true" : "false"}, {"client", json_string("cpp")},
                               {"runtime", json_string("onnxruntime " + Ort::GetVersionString())},
                               {"package", json_string(session.package.folder)}, {"target", json_string("portable")},
                               {"kernels", json_string(session.kernels)},
                               {"activations", json_string(session.options.activations)},
                               {"limit", json_number(kLimit)}, {"seconds", json_number(elapsed.count())},
                               {"cases", "[" + cases + "]"}})};
}

}  // namespace gptoss

#include <algorithm>
#include <chrono>
#include <cmath>

#include "gptoss.h"

namespace gptoss {
namespace {

constexpr double kLimit = 1e-3;

// Widens the largest difference so far; NaN stays, and never passes.
void widen(double& largest, double found, double expected) {
  const double difference = std::abs(found - expected);
  if (std::isnan(difference) || difference > largest) largest = difference;
}

double logsumexp(const float* logits, int64_t vocab) {
  const double top = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t token = 0; token < vocab; ++token) sum += std::exp(logits[token] - top);
  return top + std::log(sum);
}

std::string boolean(bool value) { return value ? "true" : "false"; }

// One case of the verdict as JSON; `all_passed` becomes false where it fails.
std::string run_case(const Session& session, const Json& golden, const std::string& path, bool& all_passed) {
  const auto prompt = golden.list<int64_t>(path + "token_ids"), greedy = golden.list<int64_t>(path + "greedy");
  const auto positions = golden.list<int64_t>(path + "positions"), sampled = golden.list<int64_t>("sampled_indices");
  const auto sums = golden.list<double>(path + "logsumexp");
  const int64_t vocab = session.package.vocab, size = static_cast<int64_t>(greedy.size());
  double logits_abs = 0, sum_abs = 0;
  KVCache cache(session, static_cast<int64_t>(prompt.size()) + size);
  const std::vector<float> logits = session.forward(cache, prompt, positions);
  for (size_t row = 0; row < positions.size(); ++row) {
    const auto compare = [&](const Tokens& indices, const std::string& name) {
      const auto expected = golden.list<double>(path + name + "/" + std::to_string(row));
      for (size_t i = 0; i < indices.size(); ++i)
        widen(logits_abs, logits.at(row * vocab + indices[i]), expected.at(i));
    };
    compare(golden.list<int64_t>(path + "top_indices/" + std::to_string(row)), "top_logits");
    compare(sampled, "sampled_logits");
    widen(sum_abs, logsumexp(&logits[row * vocab], vocab), sums.at(row));
  }
  Sampling greedily;
  greedily.stop_tokens = Tokens();
  size_t equal = 0;
  std::string note;
  const auto count_equal = [&](int64_t token) { return token == greedy[equal] && ++equal < greedy.size(); };
  cache.reset();
  try {
    session.generate(cache, prompt, greedily, size, count_equal);
  } catch (const Error& error) {
    note = error.what();
  }
  const bool passed = logits_abs <= kLimit && sum_abs <= kLimit && equal == greedy.size();
  all_passed = all_passed && passed;
  return json_object({{"name", json_string(golden.get<std::string>(path + "name"))}, {"passed", boolean(passed)},
                 {"positions", json_number(positions.size())}, {"max_abs", json_number(logits_abs)},
                 {"logsumexp_abs", json_number(sum_abs)}, {"greedy_tokens", json_number(size)},
                 {"greedy_equal", json_number(equal)}, {"note", json_string(note)}});
}

}  // namespace

Verdict verify(const Session& session) {
  const auto begin = std::chrono::steady_clock::now();
  const Json golden = Json::read(session.package.folder / "golden/golden.json");
  const size_t count = golden.get<Json::Size>("cases");
  bool passed = count > 0;
  std::string cases;
  for (size_t i = 0; i < count; ++i)
    cases += (i == 0 ? "" : ", ") + run_case(session, golden, "cases/" + std::to_string(i) + "/", passed);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  return {passed, json_object({{"format", json_string("gptoss-onnx-verdict")}, {"format_version", "1"},
                          {"passed", boolean(passed)}, {"client", json_string("cpp")},
                          {"runtime", json_string("onnxruntime " + Ort::GetVersionString())},
                          {"package", json_string(session.package.folder)}, {"target", json_string(session.package.target)},
                          {"kernels", json_string(session.kernels)}, {"activations", json_string(session.options.activations)},
                          {"limit", json_number(kLimit)}, {"seconds", json_number(elapsed.count())},
                          {"cases", "[" + cases + "]"}})};
}

}  // namespace gptoss

#include "gptoss.h"

namespace gptoss {

static constexpr double kLimit = 1e-3;

static double logsumexp(const float* logits, int64_t vocab) {
  const double top = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t token = 0; token < vocab; ++token) sum += std::exp(logits[token] - top);
  return top + std::log(sum);
}

// Whether one case passes, and its part of the verdict; `path` is its place in the golden document.
static std::pair<bool, JsonText> run_case(const Session& session, const Json& golden, const std::string& path) {
  const auto tokens = [&](const std::string& name) { return golden.list<int64_t>(path + name); };
  const Tokens prompt = tokens("token_ids"), greedy = tokens("greedy"), positions = tokens("positions");
  const int64_t vocab = session.package.vocab, count = static_cast<int64_t>(greedy.size());
  KVCache cache(session, static_cast<int64_t>(prompt.size()) + count), fresh(session, cache.capacity);
  const std::vector<float> logits = session.forward(cache, prompt, positions);
  double logits_abs = 0, sum_abs = 0;
  const auto widen = [](double& largest, double found, double expected) {
    const double difference = std::abs(found - expected);
    if (std::isnan(difference) || difference > largest) largest = difference;  // NaN stays, and never passes
  };
  for (size_t row = 0; row < positions.size(); ++row) {
    const std::string at = "/" + std::to_string(row);
    const auto compare = [&](const Tokens& ids, const std::string& name) {
      const auto expected = golden.list<double>(path + name + at);
      for (size_t i = 0; i < ids.size(); ++i) widen(logits_abs, logits.at(row * vocab + ids[i]), expected.at(i));
    };
    compare(tokens("top_indices" + at), "top_logits");
    compare(golden.list<int64_t>("sampled_indices"), "sampled_logits");
    widen(sum_abs, logsumexp(&logits[row * vocab], vocab), golden.get<double>(path + "logsumexp" + at));
  }
  Sampling greedily;
  greedily.stop_tokens = Tokens();
  size_t equal = 0;
  std::string note;
  try {
    session.generate(fresh, prompt, greedily, count,
                     [&](int64_t token) { return token == greedy[equal] && ++equal < greedy.size(); });
  } catch (const Error& error) {  // logits that are not finite fail the case, not the program
    note = error.what();
  }
  const bool passed = logits_abs <= kLimit && sum_abs <= kLimit && equal == greedy.size();
  return {passed, {{"name", golden.get<std::string>(path + "name")}, {"passed", passed},
                   {"positions", positions.size()}, {"max_abs", logits_abs}, {"logsumexp_abs", sum_abs},
                   {"greedy_tokens", count}, {"greedy_equal", equal}, {"note", note}}};
}

std::pair<bool, JsonText> verify(const Session& session) {
  const double begin = now();
  const Json golden = Json::read(session.package.folder / "golden/golden.json");
  bool passed = true;
  std::vector<JsonText> cases;
  for (size_t i = 0; i < golden.get<Json::Size>("cases"); ++i) {
    const auto [case_passed, text] = run_case(session, golden, "cases/" + std::to_string(i) + "/");
    passed = passed && case_passed;
    cases.push_back(text);
  }
  expect(!cases.empty(), golden.file, "no cases", "at least one");
  return {passed, {{"format", "gptoss-onnx-verdict"}, {"format_version", 1}, {"passed", passed}, {"client", "cpp"},
                   {"runtime", "onnxruntime " + Ort::GetVersionString()}, {"package", session.package.folder},
                   {"target", "portable"}, {"kernels", session.kernels}, {"activations", session.options.activations},
                   {"limit", kLimit}, {"seconds", now() - begin}, {"cases", cases}}};
}

}  // namespace gptoss

#include "verify.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "text.h"

namespace gptoss {

static constexpr double kLimit = 1e-3;
static constexpr size_t kPositionsLimit = 1024;  // of one case; their logits are held at once
static constexpr size_t kCasesLimit = 100;

static double logsumexp(const float* logits, int64_t vocab) {
  const double top = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t token = 0; token < vocab; ++token) sum += std::exp(logits[token] - top);
  return top + std::log(sum);
}

// Keeps the larger difference; NaN stays, and never passes.
static void widen(double& largest, double found, double expected) {
  const double difference = std::abs(found - expected);
  if (std::isnan(difference) || difference > largest) largest = difference;
}

// Compares logits (vocab) of one position at some tokens with the numbers recorded for them.
static void compare(double& largest, const float* logits, const Tokens& tokens,
                    const JsonPlace& recorded) {
  const std::vector<double> expected = recorded.numbers();
  expect(expected.size() == tokens.size(), recorded.where, std::to_string(expected.size()),
         std::to_string(tokens.size()) + " logits, as tokens");
  for (size_t i = 0; i < tokens.size(); ++i) widen(largest, logits[tokens[i]], expected[i]);
}

static void compare_logits(CaseVerdict& verdict, const Session& session, KVCache& cache,
                           const Tokens& prompt, const JsonPlace& place, const Tokens& sampled) {
  const int64_t vocab = session.package.vocab;
  const JsonPlace positions_place = place.at("positions");
  const Tokens positions = positions_place.integers(0, session.package.longest);
  expect(positions.size() <= kPositionsLimit, positions_place.where,
         std::to_string(positions.size()), "at most " + std::to_string(kPositionsLimit));
  const std::vector<float> logits = session.forward(cache, prompt, positions);
  const std::vector<double> sums = place.at("logsumexp").numbers();
  expect(sums.size() == positions.size(), place.at("logsumexp").where, std::to_string(sums.size()),
         std::to_string(positions.size()) + ", as positions");
  verdict.positions = positions.size();
  for (size_t i = 0; i < positions.size(); ++i) {
    const float* here = &logits[i * vocab];
    const Tokens top = place.at("top_indices").at(i).integers(0, vocab - 1);
    compare(verdict.max_abs, here, top, place.at("top_logits").at(i));
    compare(verdict.max_abs, here, sampled, place.at("sampled_logits").at(i));
    widen(verdict.logsumexp_abs, logsumexp(here, vocab), sums[i]);
  }
}

static void compare_greedy(CaseVerdict& verdict, const Session& session, KVCache& cache,
                           const Tokens& prompt, const Tokens& greedy) {
  Sampling greedily;
  greedily.stop_tokens = Tokens();
  const auto compare_next = [&](int64_t token) {
    if (token != greedy[verdict.greedy_equal]) return false;
    ++verdict.greedy_equal;
    return verdict.greedy_equal < greedy.size();
  };
  verdict.greedy_tokens = greedy.size();
  try {
    const auto count = static_cast<int64_t>(greedy.size());
    session.generate(cache, prompt, greedily, count, compare_next);
  } catch (const Error& error) {  // logits that are not finite fail the case, not the program
    verdict.note = error.what();
  }
}

static CaseVerdict run_case(const Session& session, const JsonPlace& place, const Tokens& sampled) {
  CaseVerdict verdict;
  verdict.name = place.at("name").text();
  const int64_t vocab = session.package.vocab;
  const Tokens prompt = place.at("token_ids").integers(0, vocab - 1);
  const Tokens greedy = place.at("greedy").integers(0, vocab - 1);
  expect(!greedy.empty(), place.where + "/greedy", "no tokens", "at least one");
  const auto capacity = static_cast<int64_t>(prompt.size() + greedy.size());
  KVCache cache(session, capacity);
  KVCache fresh(session, capacity);
  compare_logits(verdict, session, cache, prompt, place, sampled);
  compare_greedy(verdict, session, fresh, prompt, greedy);
  verdict.passed = verdict.max_abs <= kLimit && verdict.logsumexp_abs <= kLimit &&
                   verdict.greedy_equal == verdict.greedy_tokens;
  return verdict;
}

Verdict verify(const Session& session) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const auto file = file_in(session.package.folder, "golden/golden.json");
  const Json document = read_json(file);
  const JsonPlace golden(document, file);
  const Tokens sampled = golden.at("sampled_indices").integers(0, session.package.vocab - 1);
  const JsonPlace cases = golden.at("cases");
  expect(cases.size() >= 1 && cases.size() <= kCasesLimit, cases.where,
         std::to_string(cases.size()), "1 to " + std::to_string(kCasesLimit));
  Verdict verdict;
  verdict.limit = kLimit;
  verdict.passed = true;
  for (size_t i = 0; i < cases.size(); ++i) {
    verdict.cases.push_back(run_case(session, cases.at(i), sampled));
    verdict.passed = verdict.passed && verdict.cases.back().passed;
  }
  verdict.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return verdict;
}

JsonText Verdict::document(const Session& session) const {
  std::vector<JsonText> texts;
  for (const CaseVerdict& each : cases) {
    texts.push_back({{"name", each.name},
                     {"passed", each.passed},
                     {"positions", each.positions},
                     {"max_abs", each.max_abs},
                     {"logsumexp_abs", each.logsumexp_abs},
                     {"greedy_tokens", each.greedy_tokens},
                     {"greedy_equal", each.greedy_equal},
                     {"note", each.note}});
  }
  return {{"format", "gptoss-onnx-verdict"},
          {"format_version", 1},
          {"passed", passed},
          {"client", "cpp"},
          {"runtime", "onnxruntime " + Ort::GetVersionString()},
          {"package", session.package.folder.string()},
          {"target", session.package.target},
          {"kernels", session.kernels},
          {"activations", session.options.activations},
          {"limit", limit},
          {"seconds", seconds},
          {"cases", texts}};
}

// How many columns a terminal gives a text, nearly: its characters.
static size_t width(const std::string& text) {
  size_t characters = 0;
  for (size_t at = 0; at < text.size(); ++characters) at += character_at(text, at).size;
  return characters;
}

static std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// Rows of one length as aligned columns: numbers end in line, the first and last column begin so.
static std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    const std::string space(widths[0] - width(row[0]), ' ');
    text += row[0] + space;
    for (size_t i = 1; i + 1 < row.size(); ++i) {
      text += "  " + std::string(widths[i] - width(row[i]), ' ') + row[i];
    }
    text += "  " + row.back() + "\n";
  }
  return text;
}

std::string Verdict::table(const Session& session) const {
  std::vector<std::vector<std::string>> rows = {
      {"case", "positions", "max abs", "logsumexp", "greedy tokens", "verdict"}};
  std::string notes;
  size_t failed = 0;
  for (const CaseVerdict& each : cases) {
    const std::string name = printable(each.name);
    const std::string equal =
        std::to_string(each.greedy_equal) + " of " + std::to_string(each.greedy_tokens);
    rows.push_back({name, std::to_string(each.positions), formatted("%.1e", each.max_abs),
                    formatted("%.1e", each.logsumexp_abs), equal, each.passed ? "ok" : "FAILED"});
    if (!each.note.empty()) notes += "  " + name + ": " + printable(each.note) + "\n";
    if (!each.passed) ++failed;
  }
  const std::string count = std::to_string(cases.size()) + " cases";
  const std::string fail = "FAIL: " + std::to_string(failed) + " of " + count + " failed";
  const std::string how = " (" + session.kernels + " kernels, " + session.options.activations +
                          ", limit " + formatted("%g", limit) + "; " + formatted("%.1f", seconds) +
                          " s)";
  return aligned(rows) + notes + (passed ? "PASS: " + count : fail) + how;
}

}  // namespace gptoss

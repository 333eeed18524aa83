// gptoss-generate: continues token ids with a package, or verifies the package.
#include <iostream>
#include <sstream>

#include "gptoss.h"

using namespace gptoss;

static constexpr const char* kUsage =
    "usage: gptoss-generate PACKAGE (--prompt-tokens 1,2,3 | --verify) [--max-new-tokens N] [--temperature T]\n"
    "  [--top-k K] [--top-p P] [--min-p P] [--repetition-penalty R] [--seed N] [--kernels auto|native|portable]\n"
    "  [--activations exact|bf16|int8] [--library PATH] [--threads N] [--capacity N] [--json]\n"
    "Prints token ids as they come; with --json tokens, finish reason and timings at the end.\n";

struct Request {
  std::string package;
  Tokens prompt;
  int64_t max_new_tokens = 128;
  std::optional<int64_t> capacity;
  Sampling sampling;
  Options options;
  bool json = false, verify = false;
};

static Request parse_request(int count, char** words) {
  Request request;
  for (int i = 1; i < count; ++i) {
    const std::string flag = words[i];
    const auto text = [&] { return expect(++i < count, flag, "nothing after it", "a value"), std::string(words[i]); };
    const auto parse = [&](const std::string& digits, auto& value) {
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      const char* expected = std::is_integral_v<std::decay_t<decltype(value)>> ? "an integer" : "a number";
      expect(error == std::errc() && *end == '\0', flag, json_string(digits), expected);
    };
    if (flag == "--prompt-tokens") {
      std::istringstream ids(text() + ",");
      for (std::string id; std::getline(ids, id, ',');) parse(id, request.prompt.emplace_back());
    } else if (flag == "--max-new-tokens") parse(text(), request.max_new_tokens);
    else if (flag == "--capacity") parse(text(), request.capacity.emplace());
    else if (flag == "--temperature") parse(text(), request.sampling.temperature);
    else if (flag == "--top-k") parse(text(), request.sampling.top_k);
    else if (flag == "--top-p") parse(text(), request.sampling.top_p);
    else if (flag == "--min-p") parse(text(), request.sampling.min_p);
    else if (flag == "--repetition-penalty") parse(text(), request.sampling.repetition_penalty);
    else if (flag == "--seed") parse(text(), request.sampling.seed.emplace());
    else if (flag == "--threads") parse(text(), request.options.threads);
    else if (flag == "--kernels") request.options.kernels = text();
    else if (flag == "--activations") request.options.activations = text();
    else if (flag == "--library") request.options.library = text();
    else if (flag == "--json") request.json = true;
    else if (flag == "--verify") request.verify = true;
    else expect(flag[0] != '-' && request.package.empty(), "arguments", flag, "one package and the flags of --help");
    if (flag[0] != '-') request.package = flag;
  }
  expect(!request.package.empty(), "package", "none", "a folder; see --help");
  const char* found = request.verify ? "both" : "none";
  expect(request.verify == request.prompt.empty(), "--verify, --prompt-tokens", found, "one");
  return request;
}

static int generate(const Request& request, const Package& package) {
  const auto count = static_cast<int64_t>(request.prompt.size());
  const int64_t capacity = request.capacity.value_or(std::min(count + request.max_new_tokens, package.longest));
  package.check(request.prompt, capacity);
  Sampler(request.sampling, request.prompt, package.vocab);  // mistakes show before the weights are loaded
  const double begin = now();
  const Session session(package, request.options);
  const double load_seconds = now() - begin;
  KVCache cache(session, capacity);
  const auto print = [&, comma = ""](int64_t token) mutable {
    if (!request.json) std::cout << std::exchange(comma, ",") << token << std::flush;
    return true;
  };
  const auto [tokens, finish_reason, prefill_seconds, decode_seconds] =
      session.generate(cache, request.prompt, request.sampling, request.max_new_tokens, print);
  const JsonText decode_rate = tokens.size() > 1 ? (tokens.size() - 1) / decode_seconds : JsonText();
  const JsonText timings = {
      {"load_seconds", load_seconds}, {"prompt_tokens", count}, {"prefill_seconds", prefill_seconds},
      {"prefill_tokens_per_second", count / prefill_seconds}, {"new_tokens", tokens.size()},
      {"decode_seconds", decode_seconds}, {"decode_tokens_per_second", decode_rate}};
  const JsonText document = {
      {"tokens", std::vector<JsonText>(tokens.begin(), tokens.end())}, {"text", JsonText()},
      {"finish_reason", finish_reason}, {"timings", timings}, {"activations", session.options.activations},
      {"kernels", session.kernels}, {"provider", "cpu"}};
  std::cout << (request.json ? document.text : "") << "\n";
  std::cerr << session.kernels << " kernels (" << session.reason << "), " << session.options.activations << "\n";
  return 0;
}

int main(int count, char** words) try {
  if (std::find(words, words + count, std::string("--help")) != words + count) return std::cout << kUsage, 0;
  const Request request = parse_request(count, words);
  const Package package(request.package);
  if (!request.verify) return generate(request, package);
  const auto [passed, verdict] = verify(Session(package, request.options));
  std::cout << verdict.text << "\n";
  return passed ? 0 : 1;
} catch (const std::exception& error) {
  std::string line = error.what();
  std::replace(line.begin(), line.end(), '\n', ' ');  // ONNX Runtime's may have several lines
  std::cerr << "gptoss-generate: " << line << "\n";
  return 2;
}

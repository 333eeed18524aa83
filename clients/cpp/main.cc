// gptoss-generate: continues token ids with a package, or verifies the package.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <iostream>

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

template <class T>
static T parse(const std::string& flag, const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  expect(whole, flag, json_string(text), std::is_integral_v<T> ? "an integer" : "a number");
  return value;
}

static Request parse_request(int count, char** words) {
  Request request;
  for (int i = 1; i < count; ++i) {
    const std::string flag = words[i];
    const auto text = [&] { return expect(++i < count, flag, "nothing after it", "a value"), std::string(words[i]); };
    const auto read = [&](auto& value) { value = parse<std::decay_t<decltype(value)>>(flag, text()); };
    if (flag == "--prompt-tokens") {
      std::string ids = text() + ",";
      for (size_t end; (end = ids.find(',')) != ids.npos; ids.erase(0, end + 1))
        request.prompt.push_back(parse<int64_t>(flag, ids.substr(0, end)));
    } else if (flag == "--max-new-tokens") read(request.max_new_tokens);
    else if (flag == "--capacity") read(request.capacity.emplace());
    else if (flag == "--temperature") read(request.sampling.temperature);
    else if (flag == "--top-k") read(request.sampling.top_k);
    else if (flag == "--top-p") read(request.sampling.top_p);
    else if (flag == "--min-p") read(request.sampling.min_p);
    else if (flag == "--repetition-penalty") read(request.sampling.repetition_penalty);
    else if (flag == "--seed") read(request.sampling.seed.emplace());
    else if (flag == "--threads") read(request.options.threads);
    else if (flag == "--kernels") request.options.kernels = text();
    else if (flag == "--activations") request.options.activations = text();
    else if (flag == "--library") request.options.library = text();
    else if (flag == "--json") request.json = true;
    else if (flag == "--verify") request.verify = true;
    else expect(flag[0] != '-' && request.package.empty(), "arguments", flag, "one package and the flags of --help");
    if (flag[0] != '-') request.package = flag;
  }
  expect(!request.package.empty(), "package", "none", "a folder; see --help");
  expect(request.verify == request.prompt.empty(), "--verify, --prompt-tokens",
         request.verify ? "both" : "none", "one");
  return request;
}

static int generate(const Request& request, const Package& package) {
  const auto count = static_cast<int64_t>(request.prompt.size());
  const int64_t capacity = request.capacity.value_or(std::min(count + request.max_new_tokens, package.longest));
  package.check(request.prompt, capacity);
  Sampler(request.sampling, request.prompt, package.vocab);  // mistakes show before the weights are loaded
  const auto begin = std::chrono::steady_clock::now();
  const Session session(package, request.options);
  const std::chrono::duration<double> load = std::chrono::steady_clock::now() - begin;
  KVCache cache(session, capacity);
  std::string tokens;
  const auto print = [&](int64_t token) {
    const std::string text = (tokens.empty() ? "" : ",") + std::to_string(token);
    if (!request.json) std::cout << text << std::flush;
    tokens += text;
    return true;
  };
  const Generation result = session.generate(cache, request.prompt, request.sampling, request.max_new_tokens, print);
  const auto produced = static_cast<double>(result.tokens.size());
  const auto timings = json_object(
      {{"load_seconds", json_number(load.count())}, {"prompt_tokens", json_number(count)},
       {"prefill_seconds", json_number(result.prefill_seconds)},
       {"prefill_tokens_per_second", json_number(count / result.prefill_seconds)},
       {"new_tokens", json_number(produced)}, {"decode_seconds", json_number(result.decode_seconds)},
       {"decode_tokens_per_second", produced > 1 ? json_number((produced - 1) / result.decode_seconds) : "null"}});
  const auto document = json_object(
      {{"tokens", "[" + tokens + "]"}, {"text", "null"}, {"finish_reason", json_string(result.finish_reason)},
       {"timings", timings}, {"activations", json_string(session.options.activations)},
       {"kernels", json_string(session.kernels)}, {"provider", json_string("cpu")}});
  std::cout << (request.json ? document : "") << "\n";
  std::cerr << session.kernels << " kernels (" << session.reason << "), " << session.options.activations << "\n";
  return 0;
}

int main(int count, char** words) try {
  if (std::find(words, words + count, std::string("--help")) != words + count) return std::cout << kUsage, 0;
  const Request request = parse_request(count, words);
  const Package package(request.package);
  if (!request.verify) return generate(request, package);
  const auto [passed, verdict] = verify(Session(package, request.options));
  std::cout << verdict << "\n";
  return passed ? 0 : 1;
} catch (const std::exception& error) {
  std::string line = error.what();
  std::replace(line.begin(), line.end(), '\n', ' ');  // ONNX Runtime's may have several lines
  std::cerr << "gptoss-generate: " << line << "\n";
  return 2;
}

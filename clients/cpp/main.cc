// gptoss-generate: continues token ids with a package, or verifies the package.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <iostream>

#include "gptoss.h"

namespace {

using namespace gptoss;

constexpr const char* kUsage =
    "usage: gptoss-generate PACKAGE (--prompt-tokens 1,2,3 | --verify) [--max-new-tokens N] [--temperature T]\n"
    "  [--top-k K] [--top-p P] [--min-p P] [--repetition-penalty R] [--seed N] [--kernels auto|native|portable]\n"
    "  [--activations exact|bf16|int8] [--library PATH] [--threads N] [--capacity N] [--json]\n"
    "Prints token ids as they come; with --json tokens, finish reason and timings at the end.\n";

struct Request {
  std::string package;
  Tokens prompt;
  int64_t max_new_tokens = 128, capacity = 0;
  Sampling sampling;
  Options options;
  bool json = false, verify = false, help = false;
};

template <class T>
T parse(const std::string& flag, const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  expect(whole, flag, json_string(text), std::is_integral_v<T> ? "an integer" : "a number");
  return value;
}

Tokens parse_tokens(const std::string& flag, const std::string& text) {
  Tokens tokens;
  for (size_t begin = 0, end; begin <= text.size(); begin = end + 1) {
    end = std::min(text.find(',', begin), text.size());
    tokens.push_back(parse<int64_t>(flag, text.substr(begin, end - begin)));
  }
  return tokens;
}

Request parse_request(int count, char** words) {
  Request request;
  Sampling& sampling = request.sampling;
  Options& options = request.options;
  for (int i = 1; i < count; ++i) {
    const std::string flag = words[i];
    const auto text = [&] { return expect(++i < count, flag, "nothing after it", "a value"), std::string(words[i]); };
    const auto integer = [&] { return parse<int64_t>(flag, text()); };
    const auto real = [&] { return parse<double>(flag, text()); };
    if (flag == "--prompt-tokens") request.prompt = parse_tokens(flag, text());
    else if (flag == "--max-new-tokens") request.max_new_tokens = integer();
    else if (flag == "--capacity") request.capacity = integer();
    else if (flag == "--temperature") sampling.temperature = real();
    else if (flag == "--top-k") sampling.top_k = integer();
    else if (flag == "--top-p") sampling.top_p = real();
    else if (flag == "--min-p") sampling.min_p = real();
    else if (flag == "--repetition-penalty") sampling.repetition_penalty = real();
    else if (flag == "--seed") sampling.seed = parse<uint64_t>(flag, text());
    else if (flag == "--kernels") options.kernels = text();
    else if (flag == "--activations") options.activations = text();
    else if (flag == "--library") options.library = text();
    else if (flag == "--threads") options.threads = parse<int>(flag, text());
    else if (flag == "--json") request.json = true;
    else if (flag == "--verify") request.verify = true;
    else if (flag == "--help") request.help = true;
    else if (flag.rfind("-", 0) == 0) throw Error(flag + ": unknown flag, expected one that --help lists");
    else if (request.package.empty()) request.package = flag;
    else throw Error(flag + ": found a second package, expected one");
  }
  if (request.help) return request;
  expect(!request.package.empty(), "package", "none", "a folder; see --help");
  expect(request.verify == request.prompt.empty(), "--verify and --prompt-tokens", request.verify ? "both" : "neither", "one");
  return request;
}

std::string rate(double count, double seconds) { return count > 0 ? json_number(count / seconds) : "null"; }

int generate(const Request& request, const Package& package) {
  const auto count = static_cast<int64_t>(request.prompt.size());
  const int64_t enough = std::min(count + request.max_new_tokens, package.longest);
  const int64_t capacity = request.capacity != 0 ? request.capacity : enough;
  request.sampling.check();
  package.check(request.prompt, capacity);
  const auto begin = std::chrono::steady_clock::now();
  const Session session(package, request.options);
  const std::chrono::duration<double> load = std::chrono::steady_clock::now() - begin;
  KVCache cache(session, capacity);
  std::cerr << session.kernels << " kernels (" << session.reason << "), " << session.options.activations << "\n";
  const char* separator = "";
  const auto print = [&](int64_t token) {
    if (!request.json) std::cout << separator << token << std::flush;
    separator = ",";
    return true;
  };
  const Generation result = session.generate(cache, request.prompt, request.sampling, request.max_new_tokens, print);
  if (!request.json) return std::cout << "\n", 0;
  std::string tokens;
  for (const int64_t token : result.tokens) tokens += (tokens.empty() ? "" : ", ") + std::to_string(token);
  const size_t produced = result.tokens.size();
  const std::string timings = json_object(
      {{"load_seconds", json_number(load.count())}, {"prompt_tokens", json_number(count)},
       {"prefill_seconds", json_number(result.prefill_seconds)},
       {"prefill_tokens_per_second", rate(count, result.prefill_seconds)}, {"new_tokens", json_number(produced)},
       {"decode_seconds", json_number(result.decode_seconds)},
       {"decode_tokens_per_second", rate(produced - 1.0, result.decode_seconds)}});  // prefill gives the first
  std::cout << json_object({{"tokens", "[" + tokens + "]"}, {"text", "null"},
                       {"finish_reason", json_string(result.finish_reason)}, {"timings", timings},
                       {"activations", json_string(session.options.activations)}, {"kernels", json_string(session.kernels)},
                       {"provider", json_string("cpu")}}) << "\n";
  return 0;
}

}  // namespace

int main(int count, char** words) {
  try {
    const Request request = parse_request(count, words);
    if (request.help) return std::cout << kUsage, 0;
    const Package package(request.package);
    if (!request.verify) return generate(request, package);
    const Verdict verdict = verify(Session(package, request.options));
    std::cout << verdict.json << "\n";
    return verdict.passed ? 0 : 1;
  } catch (const std::exception& error) {  // ONNX Runtime's may have several lines
    std::string line = error.what();
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::cerr << "gptoss-generate: " << line << "\n";
    return 2;
  }
}

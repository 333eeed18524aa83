// gptoss-generate: continues token ids with a package, or verifies the package.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <iostream>
#include <new>
#include <sstream>

#include "gptoss.h"

using namespace gptoss;

static constexpr const char* kUsage =
    "usage: gptoss-generate PACKAGE (--prompt-tokens 1,2,3 | --verify) [flags]\n"
    "\n"
    "  --prompt-tokens IDS       token ids to continue, separated by commas\n"
    "  --verify                  run the package's golden vectors instead, and print a table\n"
    "  --json                    print one JSON document at the end, and nothing else on stdout\n"
    "\n"
    "  --max-new-tokens N        generate at most N tokens (128)\n"
    "  --capacity N              room in the KV cache, in tokens (prompt and answer)\n"
    "  --stop-token ID           end after this token, as after the package's own; repeatable\n"
    "\n"
    "  --temperature T           0 takes the most probable token (0)\n"
    "  --top-k K                 keep the K most probable tokens; 0: all (0)\n"
    "  --top-p P                 keep the fewest tokens that together are this probable (1)\n"
    "  --min-p P                 keep tokens this fraction as probable as the first (0)\n"
    "  --repetition-penalty R    of tokens that the text holds already; 1: none (1)\n"
    "  --seed N                  of the random numbers\n"
    "\n"
    "  --kernels KIND            auto, native or portable (auto)\n"
    "  --activations KIND        exact, bf16 or int8 (exact)\n"
    "  --library PATH            libgptoss_ops.so (beside the program)\n"
    "  --threads N               0: one a core (0)\n"
    "\n"
    "Exit codes: 0 done, 1 the golden vectors do not agree, 2 wrong input or environment.\n";

struct Request {
  std::string package;
  Tokens prompt;
  Tokens stop_tokens;
  int64_t max_new_tokens = 128;
  std::optional<int64_t> capacity;
  Sampling sampling;
  Options options;
  bool json = false;
  bool verify = false;
};

// Reads the words after the program's name.
class Arguments {
 public:
  Arguments(int count, char** words) : words_(words + 1, words + count) {}

  Request read() {
    for (; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      if (word[0] == '-') {
        read_flag(word);
      } else {
        expect(request_.package.empty(), "arguments", word, kExpected);
        request_.package = word;
      }
    }
    expect(!request_.package.empty(), "package", "none", "a folder; see --help");
    const char* found = request_.verify ? "both" : "none";
    expect(request_.verify == request_.prompt.empty(), "--verify, --prompt-tokens", found, "one");
    return request_;
  }

 private:
  static constexpr const char* kExpected = "one package and the flags of --help";

  void read_flag(const std::string& flag) {
    Sampling& sampling = request_.sampling;
    Options& options = request_.options;
    if (flag == "--prompt-tokens")
      request_.prompt = tokens();
    else if (flag == "--verify")
      request_.verify = true;
    else if (flag == "--json")
      request_.json = true;
    else if (flag == "--max-new-tokens")
      request_.max_new_tokens = number<int64_t>();
    else if (flag == "--capacity")
      request_.capacity = number<int64_t>();
    else if (flag == "--stop-token")
      request_.stop_tokens.push_back(number<int64_t>());
    else if (flag == "--temperature")
      sampling.temperature = number<double>();
    else if (flag == "--top-k")
      sampling.top_k = number<int64_t>();
    else if (flag == "--top-p")
      sampling.top_p = number<double>();
    else if (flag == "--min-p")
      sampling.min_p = number<double>();
    else if (flag == "--repetition-penalty")
      sampling.repetition_penalty = number<double>();
    else if (flag == "--seed")
      sampling.seed = number<uint64_t>();
    else if (flag == "--kernels")
      options.kernels = text();
    else if (flag == "--activations")
      options.activations = text();
    else if (flag == "--library")
      options.library = text();
    else if (flag == "--threads")
      options.threads = number<int>();
    else
      expect(false, "arguments", flag, kExpected);
  }

  // The word after a flag.
  const std::string& text() {
    const std::string& flag = words_[at_];
    ++at_;
    expect(at_ < words_.size(), flag, "nothing after it", "a value");
    return words_[at_];
  }

  template <class T>
  T number() {
    const std::string& flag = words_[at_];
    return parse<T>(flag, text());
  }

  Tokens tokens() {
    const std::string& flag = words_[at_];
    std::istringstream ids(text() + ",");
    Tokens result;
    for (std::string id; std::getline(ids, id, ',');) result.push_back(parse<int64_t>(flag, id));
    return result;
  }

  template <class T>
  static T parse(const std::string& flag, const std::string& digits) {
    T value = 0;
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, value);
    const char* expected = std::is_integral_v<T> ? "an integer" : "a number";
    expect(error == std::errc() && stop == end, flag, json_string(digits), expected);
    return value;
  }

  const std::vector<std::string> words_;
  size_t at_ = 0;
  Request request_;
};

static JsonText timings_of(const Generation& generation, double load_seconds, size_t prompt) {
  const size_t count = generation.tokens.size();
  JsonText decode_rate;
  if (count > 1) decode_rate = static_cast<double>(count - 1) / generation.decode_seconds;
  return {{"load_seconds", load_seconds},
          {"prompt_tokens", prompt},
          {"prefill_seconds", generation.prefill_seconds},
          {"prefill_tokens_per_second", static_cast<double>(prompt) / generation.prefill_seconds},
          {"new_tokens", count},
          {"decode_seconds", generation.decode_seconds},
          {"decode_tokens_per_second", decode_rate}};
}

static int generate(Request& request, const Package& package) {
  const auto count = static_cast<int64_t>(request.prompt.size());
  const int64_t most_new = std::min(request.max_new_tokens, package.longest);  // their sum fits
  const int64_t capacity = request.capacity.value_or(std::min(count + most_new, package.longest));
  Tokens& stops = request.sampling.stop_tokens.emplace(package.eos_tokens);
  // Mistakes show before the weights are loaded.
  package.check_prompt(request.prompt, capacity);
  package.check_tokens(request.stop_tokens, "--stop-token");
  stops.insert(stops.end(), request.stop_tokens.begin(), request.stop_tokens.end());
  Sampler(request.sampling, request.prompt, package.vocab);

  const auto begin = std::chrono::steady_clock::now();
  const Session session(package, request.options);
  const std::chrono::duration<double> load_time = std::chrono::steady_clock::now() - begin;
  KVCache cache(session, capacity);
  const char* comma = "";
  const auto print = [&](int64_t token) {
    if (!request.json) std::cout << comma << token << std::flush;
    comma = ",";
    return true;
  };
  const Generation generation =
      session.generate(cache, request.prompt, request.sampling, request.max_new_tokens, print);
  if (request.json) {
    const Tokens& tokens = generation.tokens;
    const JsonText document = {
        {"tokens", std::vector<JsonText>(tokens.begin(), tokens.end())},
        {"text", JsonText()},
        {"finish_reason", generation.finish_reason},
        {"timings", timings_of(generation, load_time.count(), request.prompt.size())},
        {"activations", session.options.activations},
        {"kernels", session.kernels},
        {"provider", "cpu"}};
    std::cout << document.text;
  }
  std::cout << "\n";
  std::cerr << session.kernels << " kernels (" << printable(session.reason) << "), "
            << session.options.activations << "\n";
  if (stops.empty()) {
    std::cerr << "the package names no token that ends a text: "
                 "only --max-new-tokens or --stop-token do\n";
  }
  return 0;
}

static int verify(const Request& request, const Package& package) {
  const Session session(package, request.options);
  const Verdict verdict = verify(session);
  const auto text = request.json ? verdict.document(session).text : verdict.table(session);
  std::cout << text << "\n";
  return verdict.passed ? 0 : 1;
}

int main(int count, char** words) try {
  const bool asks = std::find(words, words + count, std::string("--help")) != words + count;
  if (asks) {
    std::cout << kUsage;
    return 0;
  }
  Request request = Arguments(count, words).read();
  const Package package(request.package);
  return request.verify ? verify(request, package) : generate(request, package);
} catch (const std::bad_alloc&) {
  std::cerr << "gptoss-generate: memory: found too little, expected room for the cache and for the "
               "logits of all positions asked for\n";
  return 2;
} catch (const std::exception& error) {
  std::cerr << "gptoss-generate: " << error_line(error) << "\n";
  return 2;
}

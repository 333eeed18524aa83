// Calls parts of the C++ client that gptoss-generate has no flag for, so that pytest can compare them with Python.
//   probe json FILE                                prints one [path, kind, value] a line
//   probe draw SEED T K P MIN N < float32 logits   prints N tokens drawn from them
//   probe score PACKAGE LIBRARY CHUNK FIRST IDS…   writes float32 logits of every position; FIRST tokens run first
//   probe race PACKAGE LIBRARY N THREADS IDS…      prints a greedy continuation of N tokens from each thread
#include <iostream>
#include <iterator>
#include <thread>

#include "gptoss.h"

using namespace gptoss;

static void print_json(const std::string& file) {
  for (const auto& [path, value] : Json::read(file).values) {
    const JsonText text = std::visit([](const auto& held) -> JsonText {
      if constexpr (std::is_null_pointer_v<std::decay_t<decltype(held)>>) return {};
      else return held;
    }, value);
    std::cout << "[" << json_string(path) << ", " << value.index() << ", " << text.text << "]\n";
  }
}

static void draw(char** words) {
  const std::string bytes(std::istreambuf_iterator<char>(std::cin), {});
  const auto* logits = reinterpret_cast<const float*>(bytes.data());
  Sampling sampling;
  sampling.seed = std::stoull(words[0]);
  sampling.temperature = std::stod(words[1]);
  sampling.top_k = std::stoll(words[2]);
  sampling.top_p = std::stod(words[3]);
  sampling.min_p = std::stod(words[4]);
  Sampler sampler(sampling, {}, static_cast<int64_t>(bytes.size() / sizeof(float)));
  for (int left = std::stoi(words[5]); left > 0; --left) std::cout << sampler.choose(logits) << "\n";
}

static Session open(char** words) {
  Options options;
  options.kernels = "native";
  options.library = words[1];
  options.threads = 1;
  return Session(Package(words[0]), options);
}

static Tokens tokens_of(char** words) {
  Tokens tokens;
  for (; *words != nullptr; ++words) tokens.push_back(std::stoll(*words));
  return tokens;
}

static void score(char** words) {
  const Session session = open(words);
  const Tokens tokens = tokens_of(words + 4);
  const auto split = tokens.begin() + std::stoll(words[3]);
  KVCache cache(session, static_cast<int64_t>(tokens.size()), std::stoll(words[2]));
  for (const Tokens& part : {Tokens(tokens.begin(), split), Tokens(split, tokens.end())}) {
    if (part.empty()) continue;
    Tokens positions;
    for (size_t i = 0; i < part.size(); ++i) positions.push_back(static_cast<int64_t>(i));
    const std::vector<float> logits = session.forward(cache, part, positions);
    std::cout.write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(logits.size() * 4));
  }
}

static void race(char** words) {
  const Session session = open(words);
  const Tokens prompt = tokens_of(words + 4);
  const int64_t count = std::stoll(words[2]);
  std::vector<Generation> results(std::stoul(words[3]));
  std::vector<std::thread> threads;
  for (Generation& result : results)
    threads.emplace_back([&] {
      KVCache cache(session, static_cast<int64_t>(prompt.size()) + count);
      result = session.generate(cache, prompt, Sampling(), count);
    });
  for (std::thread& thread : threads) thread.join();
  for (const Generation& result : results) {
    for (const int64_t token : result.tokens) std::cout << token << " ";
    std::cout << "\n";
  }
}

int main(int, char** words) try {
  const std::string what = words[1];
  if (what == "json") print_json(words[2]);
  else if (what == "draw") draw(words + 2);
  else if (what == "score") score(words + 2);
  else if (what == "race") race(words + 2);
  else throw Error("probe: found " + what + ", expected json, draw, score or race");
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}

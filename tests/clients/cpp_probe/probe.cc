// Calls parts of the C++ client that gptoss-generate has no flag for, so that pytest can compare
// them with Python.
//   probe json FILE                               one [path, kind, value] a line
//   probe text FILE                               the file as printable() and json_string() show it
//   probe draw SEED T K P MIN R SEEN N < logits   N tokens drawn from the same float32 logits;
//                                                 SEEN: ids with commas, or -
//   probe candidates SEED … SEEN < logits         the tokens that may be drawn, and their weights
//   probe score PACKAGE LIBRARY CHUNK FIRST IDS…  float32 logits of every position, in bytes;
//                                                 FIRST tokens run first
//   probe race PACKAGE LIBRARY N THREADS IDS…     a greedy continuation of N tokens from each
//                                                 thread, with a cache of its own
//   probe share PACKAGE LIBRARY N THREADS IDS…    what each thread says, and the callback, that use
//                                                 the cache of a generation, its N tokens, and how
//                                                 a cache fares that all threads use
//   probe continue PACKAGE LIBRARY N R IDS…       N tokens from the ids at once, then from the
//                                                 first half of them and the rest in the same cache
//   probe changed PACKAGE LIBRARY FILE HOW IDS…   what a session says once FILE was changed:
//                                                 HOW: cut, touched or replaced
//   probe forward PACKAGE LIBRARY POSITIONS IDS…  what forward() says to these positions
//   probe runtime PACKAGE VERSION                 what it says to ONNX Runtime of this version
// LIBRARY is - for a package of target ort, whose kernels are ONNX Runtime's.
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <thread>

#include "draw.h"
#include "gptoss.h"
#include "print_json.h"

using namespace gptoss;
namespace fs = std::filesystem;

static Session open(char** words) {
  Options options;
  if (words[1] != std::string("-")) {
    options.kernels = "native";
    options.library = words[1];
  }
  options.threads = 1;
  return Session(Package(words[0]), options);
}

static Tokens tokens_of(char** words) {
  Tokens tokens;
  for (; *words != nullptr; ++words) tokens.push_back(std::stoll(*words));
  return tokens;
}

static void print(const Tokens& tokens) {
  for (const int64_t token : tokens) std::cout << token << " ";
  std::cout << "\n";
}

// Calls something that may be refused, and returns the line it says.
template <class Call>
static std::string refusal_of(Call call) {
  try {
    call();
    return "accepted";
  } catch (const Error& error) {
    return error_line(error);
  }
}

template <class Call>
static void print_refusal(Call call) {
  std::cout << refusal_of(call) << "\n";
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
    const auto* bytes = reinterpret_cast<const char*>(logits.data());
    std::cout.write(bytes, static_cast<std::streamsize>(logits.size() * sizeof(float)));
  }
}

static void race(char** words) {
  const Session session = open(words);
  const Tokens prompt = tokens_of(words + 4);
  const int64_t count = std::stoll(words[2]);
  std::vector<Generation> results(std::stoul(words[3]));
  std::vector<std::thread> threads;
  for (Generation& result : results) {
    threads.emplace_back([&] {
      KVCache cache(session, static_cast<int64_t>(prompt.size()) + count);
      result = session.generate(cache, prompt, Sampling(), count);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Generation& result : results) print(result.tokens);
}

// Waits until all threads of a group are here, so that they go on at the same time.
class Start {
 public:
  explicit Start(int64_t threads) : missing_(threads) {}
  void wait() {
    --missing_;
    while (missing_ > 0) std::this_thread::yield();
  }

 private:
  std::atomic<int64_t> missing_;
};

// While one generation is under way, other threads and its own callback try to use its cache.
static void share_busy_cache(const Session& session, const Tokens& prompt, int64_t count,
                             int64_t threads) {
  KVCache cache(session, session.package.longest);
  std::vector<std::string> lines(threads + 1);
  const auto result = session.generate(cache, prompt, Sampling(), count, [&](int64_t) {
    if (!lines[threads].empty()) return true;  // only after the first token
    std::vector<std::thread> others;
    Start start(threads);
    for (int64_t i = 0; i < threads; ++i) {
      others.emplace_back([&, i] {
        start.wait();
        lines[i] = refusal_of([&] {
          if (i % 2 == 0)
            session.forward(cache, prompt, {0});
          else
            session.generate(cache, prompt, Sampling(), count);
        });
      });
    }
    for (std::thread& thread : others) thread.join();
    lines[threads] = refusal_of([&] { session.forward(cache, prompt, {0}); });
    return true;
  });
  for (const std::string& line : lines) std::cout << line << "\n";
  print(result.tokens);
  print_refusal([&] { session.forward(cache, prompt, {0}); });
}

// All threads run tokens in one cache as fast as they can; it holds those of the calls that ran.
static void share_free_cache(const Session& session, int64_t threads) {
  constexpr int kRounds = 100;
  KVCache cache(session, session.package.longest);
  std::atomic<int64_t> ran{0}, refused{0};
  std::vector<std::thread> all;
  Start start(threads);
  for (int64_t i = 0; i < threads; ++i) {
    all.emplace_back([&] {
      start.wait();
      for (int round = 0; round < kRounds; ++round) {
        const auto line = refusal_of([&] { session.forward(cache, {1, 2}, {0, 1}); });
        ++(line == "accepted" ? ran : refused);
      }
    });
  }
  for (std::thread& thread : all) thread.join();
  const bool all_ended = ran + refused == threads * kRounds;
  const bool holds_them = cache.length() == 2 * ran;
  std::cout << (all_ended && holds_them ? "consistent" : "not consistent") << " " << ran << " "
            << refused << "\n";
}

static void share(char** words) {
  const Session session = open(words);
  const Tokens prompt = tokens_of(words + 4);
  const int64_t count = std::stoll(words[2]), threads = std::stoll(words[3]);
  share_busy_cache(session, prompt, count, threads);
  share_free_cache(session, threads);
  const Session another = open(words);
  KVCache cache(session, 64);
  print_refusal([&] { another.forward(cache, prompt, {0}); });
}

static void continue_cache(char** words) {
  const Session session = open(words);
  const Tokens prompt = tokens_of(words + 4);
  const int64_t count = std::stoll(words[2]);
  Sampling sampling;
  sampling.repetition_penalty = std::stod(words[3]);
  sampling.stop_tokens = Tokens();
  KVCache whole(session, 512), cache(session, 512);
  print(session.generate(whole, prompt, sampling, count).tokens);
  const auto split = prompt.begin() + static_cast<int64_t>(prompt.size()) / 2;
  session.forward(cache, Tokens(prompt.begin(), split), {});
  Tokens text = session.generate(cache, Tokens(split, prompt.end()), sampling, count / 2).tokens;
  const int64_t left = count - static_cast<int64_t>(text.size());
  const Tokens rest = session.generate(cache, {text.back()}, sampling, left).tokens;
  text.insert(text.end(), rest.begin(), rest.end());
  print(text);
}

static void changed(char** words) {
  const Session session = open(words);
  const Tokens prompt = tokens_of(words + 4);
  const fs::path file = words[2];
  const std::string how = words[3];
  KVCache cache(session, 64), fresh(session, 64);
  session.generate(cache, prompt, Sampling(), 2);
  if (how == "cut") {
    if (truncate(file.c_str(), 4096) != 0) throw Error("truncate failed");
  } else if (how == "touched") {
    fs::last_write_time(file, fs::file_time_type::clock::now() + std::chrono::hours(1));
  } else {
    fs::copy_file(file, file.string() + ".new");
    fs::last_write_time(file.string() + ".new", fs::last_write_time(file));
    fs::rename(file.string() + ".new", file);
  }
  print_refusal([&] { session.generate(cache, prompt, Sampling(), 2); });
  print_refusal([&] { session.forward(fresh, prompt, {0}); });
}

static void forward(char** words) {
  const Session session = open(words);
  const Tokens positions = ids_of(words[2]), tokens = tokens_of(words + 3);
  KVCache cache(session, 64);
  print_refusal([&] { session.forward(cache, tokens, positions); });
}

static void runtime(char** words) {
  const Package package(words[0]);
  print_refusal([&] { package.check_runtime(words[1]); });
}

static void print_text(const std::string& file) {
  const std::string text = read_file(file, 1 << 20);
  std::cout << printable(text) << "\n" << json_string(text) << "\n";
}

int main(int, char** words) try {
  const std::string what = words[1];
  if (what == "json")
    print_json(read_json(words[2]), "");
  else if (what == "text")
    print_text(words[2]);
  else if (what == "draw")
    draw(words + 2);
  else if (what == "candidates")
    candidates(words + 2);
  else if (what == "score")
    score(words + 2);
  else if (what == "race")
    race(words + 2);
  else if (what == "share")
    share(words + 2);
  else if (what == "continue")
    continue_cache(words + 2);
  else if (what == "changed")
    changed(words + 2);
  else if (what == "forward")
    forward(words + 2);
  else if (what == "runtime")
    runtime(words + 2);
  else
    throw Error("probe: found " + what + ", expected one of those above");
} catch (const std::exception& error) {
  std::cerr << error_line(error) << "\n";
  return 2;
}

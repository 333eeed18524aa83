// Runs a gpt-oss package folder with ONNX Runtime: open, prefill, decode, sample. What goes wrong throws gptoss::Error.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <variant>

namespace gptoss {

// One line: the thing, what was found, what was expected.
struct Error : std::runtime_error { using std::runtime_error::runtime_error; };

inline void expect(bool holds, const std::string& thing, const std::string& found, const std::string& expected) {
  if (!holds) throw Error(thing + ": found " + found + ", expected " + expected);
}

// A JSON document by path: the window of the first cache layer is get<int64_t>("cache/0/window").
struct Json {
  using Size = size_t;  // of an array or an object
  using Value = std::variant<std::nullptr_t, bool, int64_t, double, std::string, Size>;
  std::string file;
  std::map<std::string, Value> values;

  static Json read(const std::string& file);

  template <class T> const T* find(const std::string& path) const {  // null where there is none of this type
    const auto found = values.find(path);
    return found == values.end() ? nullptr : std::get_if<T>(&found->second);
  }
  template <class T> T get(const std::string& path) const {
    if (const T* value = find<T>(path)) return *value;
    constexpr const char* kKinds[] = {"null", "a boolean", "an integer", "a number", "a string", "an array or object"};
    const std::string found = values.count(path) != 0 ? kKinds[values.at(path).index()] : "nothing";
    throw Error(file + ": " + path + ": found " + found + ", expected " + kKinds[Value(T()).index()]);
  }
  template <class T> std::vector<T> list(const std::string& path) const {
    std::vector<T> elements;
    for (Size i = 0; i < get<Size>(path); ++i) elements.push_back(get<T>(path + "/" + std::to_string(i)));
    return elements;
  }
};

std::string json_string(const std::string& text);  // in quotation marks, escaped

// The text of a value: null, a boolean, a number (null where JSON has none), a string, an object or an array.
struct JsonText {
  JsonText() = default;
  template <class T> JsonText(const T& value) {
    char digits[32];
    if constexpr (std::is_same_v<T, bool>) text = value ? "true" : "false";
    else if constexpr (!std::is_arithmetic_v<T>) text = json_string(value);
    else if (std::isfinite(value)) text.assign(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  JsonText(std::initializer_list<std::pair<std::string, JsonText>> members);
  JsonText(const std::vector<JsonText>& elements);

  std::string text = "null";
};

using Tokens = std::vector<int64_t>;

inline double now() {  // seconds of a clock that only goes forward
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A package folder; opening it checks the format, the target, and that the weight files are those it was made with.
struct Package {
  explicit Package(const std::filesystem::path& folder);
  void check(const Tokens& tokens, int64_t room) const;  // that a cache with this much room can take them

  std::filesystem::path folder;
  Json manifest;
  int64_t vocab, longest;  // longest: the most tokens of a sequence
  Tokens eos_tokens;
};

struct Options {
  std::string kernels = "auto";       // native: libgptoss_ops; portable: the bodies in the graph; auto: native if there
  std::string activations = "exact";  // exact, bf16 or int8: what native kernels multiply the weights by
  std::filesystem::path library;      // libgptoss_ops.so; empty looks beside the program
  int threads = 0;                    // 0: one a core
};

struct Sampling {  // in the order of the steps
  double repetition_penalty = 1;      // of tokens in the prompt or the continuation; 1: none
  double temperature = 0;             // 0 takes the most probable token
  int64_t top_k = 0;                  // keeps the k most probable; 0: all
  double top_p = 1;                   // keeps the fewest that together are this probable; 1: all
  double min_p = 0;                   // keeps those this fraction as probable as the first; 0: all
  std::optional<uint64_t> seed;       // none draws a fresh one
  std::optional<Tokens> stop_tokens;  // none takes the package's
};

// Chooses the tokens of one sequence.
class Sampler {
 public:
  Sampler(const Sampling& sampling, const Tokens& prompt, int64_t vocab);
  int64_t choose(const float* logits);  // (vocab)

 private:
  int64_t draw(std::vector<float>& scores, float top);
  Sampling sampling_;
  std::vector<bool> seen_;  // by token: in the prompt or the continuation
  std::mt19937_64 random_;
};

struct Generation {
  Tokens tokens;
  std::string finish_reason;  // stop or length
  double prefill_seconds = 0, decode_seconds = 0;
};

class KVCache;

// A package opened for running. It serves many caches; different caches may run at the same time.
class Session {
 public:
  Session(const Package& package, const Options& options);
  // Runs tokens after what the cache holds; returns the logits (positions, vocab) at ascending positions among them.
  std::vector<float> forward(KVCache& cache, const Tokens& tokens, const Tokens& positions) const;
  // Continues a prompt. `on_token` gets each token as it comes; where it returns false the generation stops.
  Generation generate(KVCache& cache, const Tokens& prompt, const Sampling& sampling, int64_t max_new_tokens,
                      const std::function<bool(int64_t)>& on_token = nullptr) const;

  const Package package;
  const Options options;
  std::string kernels, reason;  // what runs, native or portable, and why

 private:
  friend class KVCache;
  Ort::Env env_{nullptr};
  mutable Ort::Session graph_{nullptr};  // its Run is safe from several threads
};

// Zero-filled buffers of one sequence, bound once as past and as present: the graph updates them where they are.
class KVCache {
 public:
  KVCache(const Session& session, int64_t capacity, int64_t chunk = 512);  // chunk: most tokens of one run of the graph
  KVCache(const KVCache&) = delete;
  int64_t length() const { return past_; }

  const int64_t capacity, chunk;

 private:
  friend class Session;
  Ort::IoBinding binding_;
  std::vector<std::unique_ptr<void, decltype(&std::free)>> buffers_;
  int64_t past_ = 0, new_ = 0;
};

// Runs the package's golden vectors; returns whether all passed, and the verdict as JSON.
std::pair<bool, JsonText> verify(const Session& session);

}  // namespace gptoss

// Runs a gpt-oss package folder with ONNX Runtime: open, prefill, decode, sample. What goes wrong throws gptoss::Error.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <random>

#include "json.h"

namespace gptoss {

using Tokens = std::vector<int64_t>;

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
  int64_t draw(float top);
  Sampling sampling_;
  std::vector<bool> seen_;  // by token: in the prompt or the continuation
  std::vector<float> scores_;
  Tokens candidates_;
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
  void reset() { past_ = 0; }
  // Runs the graph once, on at most `chunk` tokens; returns logits (kept, vocab) that live until the next run.
  const float* run(const int64_t* tokens, int64_t count, const int64_t* positions, int64_t kept);

  const int64_t capacity, chunk;

 private:
  const Session& session_;
  Ort::IoBinding binding_;
  std::vector<std::unique_ptr<void, decltype(&std::free)>> buffers_;
  int64_t past_ = 0, new_ = 0;
  Tokens ids_, positions_;
  std::vector<float> logits_;
};

// Runs the package's golden vectors; returns whether all passed, and the verdict as JSON.
std::pair<bool, std::string> verify(const Session& session);

}  // namespace gptoss

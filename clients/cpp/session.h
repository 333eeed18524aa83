// Running a package with ONNX Runtime: a session, and the KV cache of each sequence.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "package.h"
#include "sampling.h"

namespace gptoss {

struct Options {
  // native: libgptoss_ops; portable: the bodies in the graph; auto: native where it is there.
  // Target ort takes auto alone: ONNX Runtime's own run.
  std::string kernels = "auto";
  // exact, bf16 or int8: what native kernels multiply the weights by.
  std::string activations = "exact";
  std::filesystem::path library;  // libgptoss_ops.so; empty looks beside the program
  int threads = 0;                // of the session's pool; 0: one a core
};

struct Generation {
  Tokens tokens;
  std::string finish_reason;  // stop or length
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

class KVCache;

// A package opened for running. It serves many caches; different caches may run at the same time.
class Session {
 public:
  Session(const Package& package, const Options& options);

  // Runs tokens after what the cache holds. Returns the logits (positions, vocab) at positions
  // among the tokens, which ascend.
  std::vector<float> forward(KVCache& cache, const Tokens& tokens, const Tokens& positions) const;

  // Continues what the cache holds and a prompt. `on_token` gets each token as it comes; where it
  // returns false the generation stops.
  Generation generate(KVCache& cache, const Tokens& prompt, const Sampling& sampling,
                      int64_t max_new_tokens,
                      const std::function<bool(int64_t)>& on_token = nullptr) const;

  const Package package;
  const Options options;
  std::string kernels;  // what runs: native, portable, or contrib for target ort
  std::string reason;   // why

 private:
  friend class KVCache;
  void call(KVCache& cache, Tokens& ids, Tokens& kept, float* into) const;
  std::vector<float> run(KVCache& cache, const Tokens& tokens, const Tokens& positions) const;

  Ort::Env env_{nullptr};
  mutable Ort::Session graph_{nullptr};  // its Run is safe from several threads
};

// The keys and values of one sequence, in buffers bound once as past and as present: the graph
// updates them where they are. One call at a time may use a cache: a second one is refused. The
// session must outlive it, and it must outlive its calls.
class KVCache {
 public:
  // Room for `capacity` tokens; one run of the graph takes at most `chunk`.
  KVCache(const Session& session, int64_t capacity, int64_t chunk = 512);
  KVCache(const KVCache&) = delete;

  // The tokens it holds. Any thread may ask at any time.
  int64_t length() const { return length_; }

  const int64_t capacity;
  const int64_t chunk;

 private:
  friend class Session;
  class Use;
  void bind(const CacheLayer& layer, int64_t slots, ONNXTensorElementDataType type);
  void bind_lengths(int64_t count);  // of tokens that the next call runs

  const OrtSession* graph_;  // that the buffers are bound to
  Ort::IoBinding binding_;
  std::vector<std::unique_ptr<void, decltype(&std::free)>> buffers_;
  std::atomic<bool> in_use_{false};
  std::atomic<int64_t> length_{0};
  Tokens tokens_;  // that it holds
  // Inputs of the graph: the number of tokens it holds, and of this run; target ort takes as many
  // ones as there are tokens.
  int64_t past_ = 0;
  int64_t new_ = 0;
  Tokens ones_;
};

}  // namespace gptoss

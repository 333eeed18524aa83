#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "graph.h"
#include "kv_cache.h"
#include "text.h"

namespace gptoss {

// Seconds of a clock that only goes forward.
static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// ONNX Runtime 1.32 on Linux and macOS writes an id of the machine into the user's cache folder and
// tells its makers of every session, unless this is set before its first environment. Who wants
// that sets the variable to 0.
static void report_to_nobody() {
#ifndef _WIN32
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
}

Session::Session(const Package& opened, const Options& given)
    : package(after_version_check(opened)), options(given) {
  const Kernels chosen = choose_kernels(package, options);
  kernels = chosen.name;
  reason = chosen.reason;
  report_to_nobody();
  env_ = Ort::Env(ORT_LOGGING_LEVEL_FATAL, "gptoss");
  graph_ = open_graph(env_, package, options, chosen);
}

std::vector<float> Session::forward(KVCache& cache, const Tokens& tokens,
                                    const Tokens& positions) const {
  const KVCache::Use use(cache, graph_);
  package.check_prompt(tokens, cache.capacity - cache.length());
  int64_t least = 0;
  for (const int64_t position : positions) {
    const bool fits = position >= least && position < static_cast<int64_t>(tokens.size());
    expect(fits, "positions", std::to_string(position),
           "ascending ones, each of the " + std::to_string(tokens.size()) + " tokens from 0 on");
    least = position + 1;
  }
  if (cache.length() == 0) package.check_unchanged();
  return run(cache, tokens, positions);
}

// The logits are written into the caller's memory. Those of several positions have another shape
// than target ort declares, for onnxruntime-genai's sake: then ONNX Runtime must allocate them.
void Session::call(KVCache& cache, Tokens& ids, Tokens& kept, float* into) const {
  const int64_t ids_size = ids.size();
  const int64_t kept_size = kept.size();
  Ort::IoBinding& binding = cache.binding_;
  binding.BindInput("input_ids", tensor(ids.data(), {1, ids_size}));
  binding.BindInput("logit_positions", tensor(kept.data(), {1, kept_size}));
  cache.bind_lengths(ids_size);
  const bool allocates = package.target == "ort" && kept_size > 1;
  if (allocates) {
    binding.BindOutput("logits", Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault));
  } else {
    binding.BindOutput("logits", tensor(into, {1, kept_size, package.vocab}, sizeof(float),
                                        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
  }
  try {
    graph_.Run(Ort::RunOptions{nullptr}, binding);
    if (!allocates) return;
    const Ort::Value logits = std::move(binding.GetOutputValues().back());  // bound last
    const size_t found = logits.GetTensorTypeAndShapeInfo().GetElementCount();
    expect(found == static_cast<size_t>(kept_size * package.vocab), "graph: 'logits'",
           std::to_string(found) + " numbers", "those of every position asked for");
    std::copy_n(logits.GetTensorData<float>(), found, into);
  } catch (const Ort::Exception& error) {
    throw refusal(package, error);
  }
}

std::vector<float> Session::run(KVCache& cache, const Tokens& tokens,
                                const Tokens& positions) const {
  // And room for chunks in which no position lies: some runtimes fail on an empty lm_head.
  std::vector<float> logits((positions.size() + 1) * package.vocab);
  auto next = positions.begin();
  const int64_t size = tokens.size();
  for (int64_t begin = 0, end = 0; begin < size; begin = end) {
    end = std::min(begin + cache.chunk, size);
    Tokens ids(tokens.begin() + begin, tokens.begin() + end);
    float* into = &logits[(next - positions.begin()) * package.vocab];
    Tokens kept;  // positions in this chunk
    for (; next != positions.end() && *next < end; ++next) kept.push_back(*next - begin);
    if (kept.empty()) kept = {0};

    call(cache, ids, kept, into);
    cache.tokens_.insert(cache.tokens_.end(), ids.begin(), ids.end());
    cache.length_ = cache.tokens_.size();
  }
  logits.resize(positions.size() * package.vocab);
  return logits;
}

Generation Session::generate(KVCache& cache, const Tokens& prompt, const Sampling& sampling,
                             int64_t max_new_tokens,
                             const std::function<bool(int64_t)>& on_token) const {
  const KVCache::Use use(cache, graph_);
  expect(max_new_tokens > 0, "max_new_tokens", std::to_string(max_new_tokens), "at least 1");
  package.check_prompt(prompt, cache.capacity - cache.length());
  package.check_unchanged();
  Tokens seen = cache.tokens_;  // a sequence is penalized alike, in however many calls it was run
  seen.insert(seen.end(), prompt.begin(), prompt.end());
  Sampler sampler(sampling, seen, package.vocab);
  Tokens stops = sampling.stop_tokens.value_or(package.eos_tokens);
  std::sort(stops.begin(), stops.end());

  Generation result;
  Tokens next = prompt;
  while (result.finish_reason.empty()) {
    const double begin = now();
    const int64_t last = static_cast<int64_t>(next.size()) - 1;
    const int64_t token = sampler.choose(run(cache, next, {last}).data());
    double& seconds = result.tokens.empty() ? result.prefill_seconds : result.decode_seconds;
    seconds += now() - begin;
    result.tokens.push_back(token);
    next = {token};
    const bool goes_on = !on_token || on_token(token);
    const bool full = static_cast<int64_t>(result.tokens.size()) == max_new_tokens ||
                      cache.length() == cache.capacity;
    if (!goes_on || std::binary_search(stops.begin(), stops.end(), token)) {
      result.finish_reason = "stop";
    } else if (full) {
      result.finish_reason = "length";
    }
  }
  return result;
}

}  // namespace gptoss

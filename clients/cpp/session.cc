#include <dlfcn.h>

#include <algorithm>
#include <chrono>

#include "gptoss.h"

namespace gptoss {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Why the library cannot run these ops; empty where it can. It stays loaded: pool threads hold pointers into it.
std::string missing_kernels(const std::filesystem::path& path, const std::vector<std::string>& ops) {
  void* library = dlopen(path.c_str(), RTLD_NOW);
  if (library == nullptr) return dlerror();
  const auto ask = [&](const char* question) -> std::string {
    const auto function = reinterpret_cast<const char* (*)()>(dlsym(library, question));
    return function == nullptr ? "" : function();
  };
  if (const std::string error = ask("gptoss_ops_error"); !error.empty()) return error;
  const std::string kernels = "," + ask("gptoss_ops_kernels") + ",";
  for (const std::string& op : ops)
    if (kernels.find("," + op + ",") == std::string::npos) return path.string() + " has no kernel for " + op;
  return "";
}

}  // namespace

Session::Session(const Package& opened, const Options& given) : package(opened), options(given) {
  const OrtApiBase* runtime = OrtGetApiBase();
  expect(runtime->GetApi(ORT_API_VERSION) != nullptr, "libonnxruntime", runtime->GetVersionString(),
         "1." + std::to_string(ORT_API_VERSION) + " or newer, as the headers this was built with");
  const auto& [kernels_wanted, activations, path, threads] = options;
  const bool portable = kernels_wanted == "portable", native = kernels_wanted == "native", exact = activations == "exact";
  expect(portable || native || kernels_wanted == "auto", "kernels", kernels_wanted, "auto, native or portable");
  expect(exact || activations == "bf16" || activations == "int8", "activations", activations, "exact, bf16 or int8");
  const auto beside = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libgptoss_ops.so";
  const auto library = path.empty() ? beside : path;
  reason = portable ? "asked for" : missing_kernels(library, package.ops);
  kernels = reason.empty() ? "native" : "portable";
  expect(kernels == "native" || (!native && exact), "native kernels", reason, "them for --kernels native and --activations");
  Ort::SessionOptions settings;
  settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR).SetInterOpNumThreads(1).SetIntraOpNumThreads(threads);
  if (!package.weights_root.empty())
    settings.AddConfigEntry("session.model_external_initializers_file_folder_path", package.weights_root.c_str());
  if (kernels == "native") {
    reason = library;
    settings.AddConfigEntry("gptoss.activations", activations.c_str());  // the library reads it while it registers
    settings.RegisterCustomOpsLibrary(library.c_str());
  }
  env_ = Ort::Env(ORT_LOGGING_LEVEL_ERROR, "gptoss");
  graph_ = Ort::Session(env_, package.graph.c_str(), settings);
}

std::vector<float> Session::forward(KVCache& cache, const Tokens& tokens, const Tokens& positions) const {
  package.check(tokens, cache.capacity - cache.length());
  std::vector<float> logits;
  auto next = positions.begin();
  for (int64_t begin = 0, end, size = tokens.size(); begin < size; begin = end) {
    end = std::min(begin + cache.chunk, size);
    Tokens here;  // positions in this chunk
    for (; next != positions.end() && *next < end; ++next) here.push_back(*next - begin);
    const size_t wanted = here.size() * package.vocab;
    if (here.empty()) here = {0};  // no runtime has to bear an empty lm_head
    const float* rows = cache.run(&tokens[begin], end - begin, here.data(), here.size());
    logits.insert(logits.end(), rows, rows + wanted);
  }
  return logits;
}

Generation Session::generate(KVCache& cache, const Tokens& prompt, const Sampling& sampling, int64_t max_new_tokens,
                             const std::function<bool(int64_t)>& on_token) const {
  expect(max_new_tokens > 0, "max_new_tokens", std::to_string(max_new_tokens), "at least 1");
  package.check(prompt, cache.capacity - cache.length());
  Generation result;
  Sampler sampler(sampling, prompt, package.vocab);
  const Tokens& stops = sampling.stop_tokens ? *sampling.stop_tokens : package.eos_tokens;
  double begin = now();
  const auto prefill = forward(cache, prompt, {static_cast<int64_t>(prompt.size()) - 1});
  const float* logits = prefill.data();
  result.prefill_seconds = now() - begin;
  for (begin = now(); result.finish_reason.empty(); begin = now()) {
    constexpr int64_t kOnly = 0;
    if (!result.tokens.empty()) logits = cache.run(&result.tokens.back(), 1, &kOnly, 1);
    const int64_t token = sampler.choose(logits);
    result.tokens.push_back(token);
    result.decode_seconds += now() - begin;
    const bool goes_on = (!on_token || on_token(token)) && std::find(stops.begin(), stops.end(), token) == stops.end();
    const bool full = static_cast<int64_t>(result.tokens.size()) == max_new_tokens || cache.length() == cache.capacity;
    if (!goes_on || full) result.finish_reason = goes_on ? "length" : "stop";
  }
  return result;
}

}  // namespace gptoss

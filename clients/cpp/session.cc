#include "session.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "kv_cache.h"
#include "text.h"

namespace gptoss {

namespace fs = std::filesystem;

// More than the machine has cores only wait for each other: thousands of them for minutes.
static int threads_limit() {
  return std::max<int>(256, static_cast<int>(std::thread::hardware_concurrency()));
}

// Seconds of a clock that only goes forward.
static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Why the library cannot run the graph's ops; empty where it can. It stays loaded: threads of
// ONNX Runtime's pool hold pointers into it.
static std::string missing_kernels(const fs::path& path, const std::vector<std::string>& ops) {
  // dlopen would wait for the other end of a FIFO.
  if (fs::exists(path) && !fs::is_regular_file(path)) return path.string() + " is no file";
  void* library = dlopen(path.c_str(), RTLD_NOW);
  if (library == nullptr) return dlerror();
  const auto ask = [&](const char* question) -> std::string {
    const auto function = reinterpret_cast<const char* (*)()>(dlsym(library, question));
    return function == nullptr ? "" : function();
  };
  std::string missing = ask("gptoss_ops_error");
  const std::string kernels = "," + ask("gptoss_ops_kernels") + ",";
  for (const std::string& op : ops) {
    if (kernels.find("," + op + ",") != kernels.npos) continue;
    missing = path.string() + " has no kernel for " + op;
  }
  return missing;
}

static void check_options(const Options& options) {
  const auto& [kernels, activations, library, threads] = options;
  const bool known = kernels == "auto" || kernels == "native" || kernels == "portable";
  expect(known, "kernels", kernels, "auto, native or portable");
  const bool is_kind = activations == "exact" || activations == "bf16" || activations == "int8";
  expect(is_kind, "activations", activations, "exact, bf16 or int8");
  expect(threads >= 0 && threads <= threads_limit(), "threads", std::to_string(threads),
         "1 to " + std::to_string(threads_limit()) + ", or 0 for one a core");
}

// What ONNX Runtime says of a graph, in one line that names the file.
static Error refusal(const Package& package, const Ort::Exception& error) {
  std::string said = error.what();
  while (!said.empty() && said.back() == '\n') said.pop_back();
  return Error(package.graph.string() + ": found a graph that ONNX Runtime refuses, expected one " +
               "that it runs; export the package again. It says: " + said);
}

// Throws where the library of ONNX Runtime is older than the headers. Without its functions no
// object of it could even be destroyed, so this comes before the first.
static const Package& after_version_check(const Package& package) {
  const OrtApiBase* base = OrtGetApiBase();
  expect(base->GetApi(ORT_API_VERSION) != nullptr, "libonnxruntime", base->GetVersionString(),
         "1." + std::to_string(ORT_API_VERSION) + " or newer, as the headers this was built with");
  return package;
}

Session::Session(const Package& opened, const Options& given)
    : package(after_version_check(opened)), options(given) {
  check_options(options);
  const auto& [choice, activations, path, threads] = options;
  const auto beside = fs::read_symlink("/proc/self/exe").replace_filename("libgptoss_ops.so");
  const fs::path library = path.empty() ? beside : path;
  reason = choice == "portable" ? "asked for" : missing_kernels(library, package.ops);
  kernels = reason.empty() ? "native" : "portable";
  const bool may_be_portable = activations == "exact" && choice != "native";
  expect(kernels == "native" || may_be_portable,
         "--kernels " + choice + " --activations " + activations,
         "portable kernels (" + reason + ")", "native ones");

  // What goes wrong is thrown; ONNX Runtime's own lines about it would come before ours.
  Ort::SessionOptions settings;
  settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
  settings.SetInterOpNumThreads(1);
  settings.SetIntraOpNumThreads(threads);
  // What was checked is what runs: the bytes, as an ONNX model, with weights below this folder.
  settings.AddConfigEntry("session.load_model_format", "ONNX");
  settings.AddConfigEntry("session.model_external_initializers_file_folder_path",
                          package.weights_root.c_str());
  if (kernels == "native") {
    reason = library;
    // The library reads the activations while it registers.
    settings.AddConfigEntry("gptoss.activations", activations.c_str());
    settings.RegisterCustomOpsLibrary(library.c_str());
  }
  env_ = Ort::Env(ORT_LOGGING_LEVEL_FATAL, "gptoss");
  const std::string model = package.read_graph();
  try {
    graph_ = Ort::Session(env_, model.data(), model.size(), settings);
  } catch (const Ort::Exception& error) {
    throw refusal(package, error);
  }
  package.check_mapped();
  check_graph();
}

// Type and shape of an input or output; empty for what is no tensor.
using Interface = std::map<std::string, std::pair<ONNXTensorElementDataType, Tokens>>;

static std::pair<ONNXTensorElementDataType, Tokens> kind_of(const Ort::TypeInfo& info) {
  if (info.GetONNXType() != ONNX_TYPE_TENSOR) return {};
  const auto tensor_info = info.GetTensorTypeAndShapeInfo();
  return {tensor_info.GetElementType(), tensor_info.GetShape()};
}

static void check_tensor(const Interface& interface, const std::string& name,
                         ONNXTensorElementDataType type, const Tokens& shape) {
  const auto found = interface.find(name);
  expect(found != interface.end(), "graph", "no '" + name + "'", "one, as the manifest says");
  const auto& [found_type, found_shape] = found->second;
  bool fits = found_type == type && found_shape.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) {
    const bool is_any = shape[i] < 0 || found_shape[i] < 0;
    fits = is_any || shape[i] == found_shape[i];
  }
  expect(fits, "graph: '" + name + "'", "another type or shape", "what the manifest says");
}

// Throws unless the graph's inputs and outputs are those of the manifest: the buffers that are
// bound to them have the manifest's shapes.
void Session::check_graph() const {
  Interface inputs;
  Interface outputs;
  const auto input_names = graph_.GetInputNames();
  const auto output_names = graph_.GetOutputNames();
  for (size_t i = 0; i < input_names.size(); ++i) {
    inputs[input_names[i]] = kind_of(graph_.GetInputTypeInfo(i));
  }
  for (size_t i = 0; i < output_names.size(); ++i) {
    outputs[output_names[i]] = kind_of(graph_.GetOutputTypeInfo(i));
  }
  constexpr auto kInteger = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  constexpr int64_t kAny = -1;
  check_tensor(inputs, "input_ids", kInteger, {1, kAny});
  check_tensor(inputs, "past_lengths", kInteger, {1});
  check_tensor(inputs, "new_lengths", kInteger, {1});
  check_tensor(inputs, "logit_positions", kInteger, {1, kAny});
  check_tensor(outputs, "logits", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {1, kAny, package.vocab});
  for (const CacheLayer& layer : package.layers) {
    const Tokens shape = {1, layer.kv_heads, kAny, layer.head_dim};
    for (const std::string& name : {layer.past_key, layer.past_value}) {
      check_tensor(inputs, name, kv_type(package), shape);
    }
    for (const std::string& name : {layer.present_key, layer.present_value}) {
      check_tensor(outputs, name, kv_type(package), shape);
    }
  }
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

    const int64_t ids_size = ids.size();
    const int64_t kept_size = kept.size();
    const auto output = tensor(into, {1, kept_size, package.vocab}, sizeof(float),
                               ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    cache.past_ = cache.length();
    cache.new_ = ids_size;
    cache.binding_.BindInput("input_ids", tensor(ids.data(), {1, ids_size}));
    cache.binding_.BindInput("logit_positions", tensor(kept.data(), {1, kept_size}));
    cache.binding_.BindOutput("logits", output);
    try {
      graph_.Run(Ort::RunOptions{nullptr}, cache.binding_);
    } catch (const Ort::Exception& error) {
      throw refusal(package, error);
    }
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

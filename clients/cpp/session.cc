#include <dlfcn.h>

#include "gptoss.h"

namespace gptoss {

// Why the library cannot run the graph's ops; empty where it can. It stays loaded: pool threads hold pointers into it.
static std::string missing_kernels(const std::filesystem::path& path, const Json& manifest) {
  void* library = dlopen(path.c_str(), RTLD_NOW);
  if (library == nullptr) return dlerror();
  const auto ask = [&](const char* question) -> std::string {
    const auto function = reinterpret_cast<const char* (*)()>(dlsym(library, question));
    return function == nullptr ? "" : function();
  };
  std::string missing = ask("gptoss_ops_error");
  const std::string kernels = "," + ask("gptoss_ops_kernels") + ",";
  for (size_t i = 0; i < manifest.get<Json::Size>("ops"); ++i) {
    const auto op = manifest.get<std::string>("ops/" + std::to_string(i) + "/name");
    if (kernels.find("," + op + ",") == std::string::npos) missing = path.string() + " has no kernel for " + op;
  }
  return missing;
}

Session::Session(const Package& opened, const Options& given) : package(opened), options(given) {
  const auto& [choice, activations, path, threads] = options;
  const bool exact = activations == "exact", is_auto = choice == "auto", portable = choice == "portable";
  expect(is_auto || portable || choice == "native", "kernels", choice, "auto, native or portable");
  expect(exact || activations == "bf16" || activations == "int8", "activations", activations, "exact, bf16 or int8");
  expect(threads >= 0, "threads", std::to_string(threads), "at least 1, or 0 for one a core");
  const auto beside = std::filesystem::read_symlink("/proc/self/exe").replace_filename("libgptoss_ops.so");
  const auto library = path.empty() ? beside : path;
  reason = portable ? "asked for" : missing_kernels(library, package.manifest);
  kernels = reason.empty() ? "native" : "portable";
  expect(kernels == "native" || (exact && choice != "native"), "--kernels " + choice + " --activations " + activations,
         "portable kernels (" + reason + ")", "native ones");
  Ort::SessionOptions settings;
  settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR).SetInterOpNumThreads(1).SetIntraOpNumThreads(threads);
  if (const auto* root = package.manifest.find<std::string>("weights/root"))
    settings.AddConfigEntry("session.model_external_initializers_file_folder_path", root->c_str());
  if (kernels == "native") {
    reason = library;
    settings.AddConfigEntry("gptoss.activations", activations.c_str());  // the library reads it while it registers
    settings.RegisterCustomOpsLibrary(library.c_str());
  }
  env_ = Ort::Env(ORT_LOGGING_LEVEL_ERROR, "gptoss");
  graph_ = Ort::Session(env_, (package.folder / package.manifest.get<std::string>("graph")).c_str(), settings);
}

// A tensor over memory that stays its owner's.
static Ort::Value tensor(void* data, const Tokens& shape, size_t element_bytes = sizeof(int64_t),
                         ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64) {
  static const auto cpu = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  for (const int64_t size : shape) element_bytes *= size;
  return Ort::Value::CreateTensor(cpu, data, element_bytes, shape.data(), shape.size(), type);
}

std::vector<float> Session::forward(KVCache& cache, const Tokens& tokens, const Tokens& positions) const {
  package.check(tokens, cache.capacity - cache.length());
  std::vector<float> logits((positions.size() + 1) * package.vocab);  // and a row for a chunk without positions
  auto next = positions.begin();
  for (int64_t begin = 0, end = 0, size = tokens.size(); begin < size; begin = end) {
    end = std::min(begin + cache.chunk, size);
    Tokens ids(tokens.begin() + begin, tokens.begin() + end), here;  // here: positions in this chunk
    float* rows = &logits[(next - positions.begin()) * package.vocab];
    for (; next != positions.end() && *next < end; ++next) here.push_back(*next - begin);
    if (here.empty()) here = {0};  // no runtime has to bear an empty lm_head
    cache.new_ = end - begin;
    const int64_t kept = here.size();
    cache.binding_.BindInput("input_ids", tensor(ids.data(), {1, cache.new_}));
    cache.binding_.BindInput("logit_positions", tensor(here.data(), {1, kept}));
    cache.binding_.BindOutput("logits", tensor(rows, {1, kept, package.vocab}, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
    graph_.Run(Ort::RunOptions{nullptr}, cache.binding_);
    cache.past_ += cache.new_;
  }
  logits.resize(positions.size() * package.vocab);
  return logits;
}

Generation Session::generate(KVCache& cache, const Tokens& prompt, const Sampling& sampling, int64_t max_new_tokens,
                             const std::function<bool(int64_t)>& on_token) const {
  expect(max_new_tokens > 0, "max_new_tokens", std::to_string(max_new_tokens), "at least 1");
  package.check(prompt, cache.capacity - cache.length());
  Generation result;
  Sampler sampler(sampling, prompt, package.vocab);
  const Tokens stops = sampling.stop_tokens.value_or(package.eos_tokens);
  for (Tokens next = prompt; result.finish_reason.empty(); next = {result.tokens.back()}) {
    const double begin = now();
    const int64_t token = sampler.choose(forward(cache, next, {static_cast<int64_t>(next.size()) - 1}).data());
    (result.tokens.empty() ? result.prefill_seconds : result.decode_seconds) += now() - begin;
    result.tokens.push_back(token);
    const bool goes_on = (!on_token || on_token(token)) && std::find(stops.begin(), stops.end(), token) == stops.end();
    const bool full = static_cast<int64_t>(result.tokens.size()) == max_new_tokens || cache.length() == cache.capacity;
    if (!goes_on || full) result.finish_reason = goes_on ? "length" : "stop";
  }
  return result;
}

KVCache::KVCache(const Session& session, int64_t capacity_, int64_t chunk_)
    : capacity(capacity_), chunk(chunk_), binding_(session.graph_) {
  const Json& manifest = session.package.manifest;
  const int64_t longest = session.package.longest;
  expect(capacity > 0 && capacity <= longest, "capacity", std::to_string(capacity), "1 to " + std::to_string(longest));
  expect(chunk > 0, "chunk", std::to_string(chunk), "at least 1");
  const auto dtype = manifest.get<std::string>("kv_dtype");
  const bool is_float = dtype == "float32", is_half = dtype == "float16";
  expect(is_float || is_half || dtype == "bfloat16", "kv_dtype", dtype, "float32, float16 or bfloat16");
  const auto half = is_half ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  const auto [type, bytes] = is_float ? std::pair(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4) : std::pair(half, 2);
  for (size_t i = 0; i < manifest.get<Json::Size>("cache"); ++i) {
    const std::string layer = "cache/" + std::to_string(i) + "/";
    const int64_t heads = manifest.get<int64_t>(layer + "kv_heads"), width = manifest.get<int64_t>(layer + "head_dim");
    const int64_t window = manifest.get<int64_t>(layer + "window");  // 0: none
    // A ring of so many slots overwrites nothing that a query of the same run still sees.
    const int64_t slots = window > 0 ? std::min(capacity, window + chunk - 1) : capacity;
    for (const std::string what : {"key", "value"}) {
      // Zeros, since an unseen slot is multiplied by 0, which a NaN survives. Untouched pages cost nothing.
      buffers_.emplace_back(std::calloc(heads * slots * width, bytes), std::free);
      void* memory = buffers_.back().get();
      expect(memory != nullptr, "KV cache", "no memory for it", "less capacity than " + std::to_string(capacity));
      const Ort::Value buffer = tensor(memory, {1, heads, slots, width}, bytes, type);
      binding_.BindInput(manifest.get<std::string>(layer + "past_" + what).c_str(), buffer);
      binding_.BindOutput(manifest.get<std::string>(layer + "present_" + what).c_str(), buffer);
    }
  }
  binding_.BindInput("past_lengths", tensor(&past_, {1}));
  binding_.BindInput("new_lengths", tensor(&new_, {1}));
}

}  // namespace gptoss

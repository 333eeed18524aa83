#include "graph.h"

#include <dlfcn.h>

#include <algorithm>
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

Error refusal(const Package& package, const Ort::Exception& error) {
  std::string said = error.what();
  while (!said.empty() && said.back() == '\n') said.pop_back();
  return Error(package.graph.string() + ": found a graph that ONNX Runtime refuses, expected one " +
               "that it runs; export the package again. It says: " + said);
}

const Package& after_version_check(const Package& package) {
  const OrtApiBase* base = OrtGetApiBase();
  const std::string found = base->GetVersionString();
  expect(base->GetApi(ORT_API_VERSION) != nullptr, "libonnxruntime", found,
         "1." + std::to_string(ORT_API_VERSION) + " or newer, as the headers this was built with");
  package.check_runtime(found);
  return package;
}

// Target ort has one kind of kernels, and what it multiplies by is a matter of the package.
static Kernels choose_contrib(const Package& package, const Options& options) {
  const std::string instead = ": export with --target portable for others";
  expect(options.kernels == "auto", "kernels for target ort", options.kernels, "auto" + instead);
  expect(package.runs("activations " + options.activations), "activations for target ort",
         options.activations, "those that the package has" + instead);
  return {"contrib", "ONNX Runtime's own", {}};
}

// Empty where they run.
static std::string why_not_native(const Package& package, const std::string& choice,
                                  const fs::path& library) {
  if (choice == "portable") return "asked for";
  if (package.target == "openvino") return "target openvino has none of their ops";
  return missing_kernels(library, package.ops);
}

Kernels choose_kernels(const Package& package, const Options& options) {
  check_options(options);
  if (package.target == "ort") return choose_contrib(package, options);
  const auto& [choice, activations, path, threads] = options;
  const auto beside = fs::read_symlink("/proc/self/exe").replace_filename("libgptoss_ops.so");
  const fs::path library = path.empty() ? beside : path;
  const std::string missing = why_not_native(package, choice, library);
  if (missing.empty()) return {"native", library, library};
  const bool may_be_portable = activations == "exact" && choice != "native";
  expect(may_be_portable, "--kernels " + choice + " --activations " + activations,
         "portable kernels (" + missing + ")", "native ones");
  return {"portable", missing, {}};
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
// bound to them have the manifest's shapes. Inputs that it has beside them must have a default.
static void check_graph(const Ort::Session& graph, const Package& package) {
  Interface inputs;
  Interface outputs;
  Ort::AllocatorWithDefaultOptions allocator;
  const auto input_names = graph.GetInputNames();
  const auto output_names = graph.GetOutputNames();
  for (size_t i = 0; i < input_names.size(); ++i) {
    inputs[input_names[i]] = kind_of(graph.GetInputTypeInfo(i));
  }
  // Those with a default.
  for (size_t i = 0; i < graph.GetOverridableInitializerCount(); ++i) {
    const auto name = graph.GetOverridableInitializerNameAllocated(i, allocator);
    inputs[name.get()] = kind_of(graph.GetOverridableInitializerTypeInfo(i));
  }
  for (size_t i = 0; i < output_names.size(); ++i) {
    outputs[output_names[i]] = kind_of(graph.GetOutputTypeInfo(i));
  }
  constexpr auto kInteger = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  constexpr int64_t kAny = -1;
  check_tensor(inputs, "input_ids", kInteger, {1, kAny});
  check_tensor(inputs, "logit_positions", kInteger, {1, kAny});
  if (package.target == "ort") {
    check_tensor(inputs, "attention_mask", kInteger, {1, kAny});
  } else {
    check_tensor(inputs, "past_lengths", kInteger, {1});
    check_tensor(inputs, "new_lengths", kInteger, {1});
  }
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

Ort::Session open_graph(const Ort::Env& env, const Package& package, const Options& options,
                        const Kernels& kernels) {
  // What goes wrong is thrown; ONNX Runtime's own lines about it would come before ours.
  Ort::SessionOptions settings;
  settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
  settings.SetInterOpNumThreads(1);
  settings.SetIntraOpNumThreads(options.threads);
  // What was checked is what runs: the bytes, as an ONNX model, with weights below this folder.
  settings.AddConfigEntry("session.load_model_format", "ONNX");
  settings.AddConfigEntry("session.model_external_initializers_file_folder_path",
                          package.weights_root.c_str());
  if (kernels.name == "native") {
    // The library reads the activations while it registers.
    settings.AddConfigEntry("gptoss.activations", options.activations.c_str());
    settings.RegisterCustomOpsLibrary(kernels.library.c_str());
  }
  if (kernels.name == "contrib" && options.activations == "exact") {
    // QMoE rounds activations to int8 for integers that it prepacked. Nor are weights copied then.
    settings.AddConfigEntry("session.disable_prepacking", "1");
  }
  const std::string model = package.read_graph();
  try {
    Ort::Session graph(env, model.data(), model.size(), settings);
    package.check_mapped();
    check_graph(graph, package);
    return graph;
  } catch (const Ort::Exception& error) {
    throw refusal(package, error);
  }
}

}  // namespace gptoss

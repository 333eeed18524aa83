// A Node addon that runs a package's graph with libgptoss_ops registered, which onnxruntime-node cannot do.
// It drives the ONNX Runtime that onnxruntime-node ships, through its C API and off the main thread.
// What it throws becomes a JavaScript error (NODE_ADDON_API_CPP_EXCEPTIONS_ALL).
#include <dlfcn.h>
#include <napi.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort_api.h"

namespace {

constexpr int kLogErrors = 3, kDeviceAllocator = 0, kDefaultMemory = 0;

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

template <typename Function>
Function* symbol(const std::string& path, const char* name) {
  void* library = dlopen(path.c_str(), RTLD_NOW);  // never closed: sessions hold pointers into it
  void* found = library == nullptr ? nullptr : dlsym(library, name);
  if (found == nullptr) throw std::runtime_error(dlerror());
  return reinterpret_cast<Function*>(found);
}

// ONNX Runtime, loaded once a process.
struct Runtime {
  const OrtApi* api;
  OrtEnv* env = nullptr;
  OrtMemoryInfo* memory = nullptr;

  explicit Runtime(const std::string& path) : api(symbol<const OrtApiBase*()>(path, "OrtGetApiBase")()->GetApi(18)) {
    if (api == nullptr) throw std::runtime_error(path + ": found an older ONNX Runtime, expected 1.18 or newer");
    check(api->CreateEnv(kLogErrors, "gptoss-node", &env));
    check(api->CreateCpuMemoryInfo(kDeviceAllocator, kDefaultMemory, &memory));
  }

  void check(OrtStatus* status) const {
    if (status == nullptr) return;
    const Owned<OrtStatus> owner(status, api->ReleaseStatus);
    throw std::runtime_error(api->GetErrorMessage(status));
  }

  // Returns what `create(arguments..., &made)` makes.
  template <typename T, typename Create, typename... Arguments>
  Owned<T> make(void (*release)(T*), Create create, Arguments... arguments) const {
    T* made = nullptr;
    check(create(arguments..., &made));
    return {made, release};
  }
};

struct Graph {
  const Runtime& ort;
  Owned<OrtSession> session;
};

struct Tensor {
  Owned<OrtValue> value;
  Napi::Reference<Napi::Value> array;  // whose memory it is, kept from the garbage collector
};

// JavaScript holds graphs and tensors as externals.
template <typename T>
Napi::Value wrap(Napi::Env env, T value) {
  return Napi::External<T>::New(env, new T(std::move(value)), [](Napi::Env, T* held) { delete held; });
}

template <typename T>
T& unwrap(const Napi::Value& value) {
  return *value.As<Napi::External<T>>().Data();
}

std::string text(const Napi::Value& value) { return value.As<Napi::String>(); }

// The tensors of one run by the names of the graph's inputs or outputs, as the C API takes them.
struct Named {
  Napi::ObjectReference tensors;  // kept from the garbage collector
  std::vector<std::string> strings;
  std::vector<const char*> names;
  std::vector<OrtValue*> values;

  explicit Named(Napi::Object of) : tensors(Napi::Persistent(of)) {
    for (const auto& [name, tensor] : of) {
      strings.push_back(text(name));
      values.push_back(unwrap<Tensor>(tensor).value.get());
    }
    for (const std::string& name : strings) names.push_back(name.c_str());
  }
};

// One run, on a thread of Node's pool. It shares the graph, which may be closed meanwhile, and deletes itself.
struct Run : Napi::AsyncWorker {
  const std::shared_ptr<Graph> graph;
  const Named feeds;
  Named fetches;

  explicit Run(const Napi::CallbackInfo& info)
      : AsyncWorker(info[3].As<Napi::Function>()), graph(unwrap<std::shared_ptr<Graph>>(info[0])),
        feeds(info[1].As<Napi::Object>()), fetches(info[2].As<Napi::Object>()) {}
  void Execute() override {
    graph->ort.check(graph->ort.api->Run(graph->session.get(), nullptr, feeds.names.data(), feeds.values.data(),
                                         feeds.values.size(), fetches.names.data(), fetches.values.size(),
                                         fetches.values.data()));
  }
};

// kernels(library): the names of the operators it has kernels for, separated by commas.
Napi::Value kernels(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), symbol<const char*()>(text(info[0]), "gptoss_ops_kernels")());
}

// open(runtime, model, library, threads, config): a graph; 0 threads leave it to ONNX Runtime.
Napi::Value open(const Napi::CallbackInfo& info) {
  static const Runtime ort(text(info[0]));
  const auto options = ort.make(ort.api->ReleaseSessionOptions, ort.api->CreateSessionOptions);
  ort.check(ort.api->SetSessionLogSeverityLevel(options.get(), kLogErrors));
  ort.check(ort.api->SetIntraOpNumThreads(options.get(), info[3].As<Napi::Number>()));
  for (const auto& [key, value] : info[4].As<Napi::Object>())  // first: the library reads them while it registers
    ort.check(ort.api->AddSessionConfigEntry(options.get(), text(key).c_str(), text(value).c_str()));
  ort.check(ort.api->RegisterCustomOpsLibrary_V2(options.get(), text(info[2]).c_str()));
  const std::string model = text(info[1]);
  auto session = ort.make(ort.api->ReleaseSession, ort.api->CreateSession, ort.env, model.c_str(), options.get());
  return wrap(info.Env(), std::shared_ptr<Graph>(new Graph{ort, std::move(session)}));
}

// tensor(graph, elementType, array, shape): the array's memory, for runs to read and write in place.
Napi::Value tensor(const Napi::CallbackInfo& info) {
  const Runtime& ort = unwrap<std::shared_ptr<Graph>>(info[0])->ort;
  const int type = info[1].As<Napi::Number>();
  const auto array = info[2].As<Napi::TypedArray>();
  const auto sizes = info[3].As<Napi::Array>();
  std::vector<int64_t> shape;
  for (uint32_t i = 0; i < sizes.Length(); ++i) shape.push_back(sizes.Get(i).As<Napi::Number>());
  char* data = static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  auto value = ort.make(ort.api->ReleaseValue, ort.api->CreateTensorWithDataAsOrtValue, ort.memory, data,
                        array.ByteLength(), shape.data(), shape.size(), type);
  return wrap(info.Env(), Tensor{std::move(value), Napi::Reference<Napi::Value>::New(array, 1)});
}

// run(graph, feeds, fetches, callback): calls back with an error or nothing, once the fetches are written.
void run(const Napi::CallbackInfo& info) { (new Run(info))->Queue(); }

// close(graph): frees it as soon as no run has it.
void close(const Napi::CallbackInfo& info) { unwrap<std::shared_ptr<Graph>>(info[0]).reset(); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) { exports[name] = Napi::Function::New(env, function); };
  add("kernels", kernels);
  add("open", open);
  add("tensor", tensor);
  add("run", run);
  add("close", close);
  return exports;
}

}  // namespace

NODE_API_MODULE(gptoss_ort, init)

// A Node addon that runs a package's graph with libgptoss_ops registered, which onnxruntime-node cannot do.
// It drives the ONNX Runtime that onnxruntime-node ships, through its C API and off the main thread.
#include <dlfcn.h>
#include <napi.h>

#include <map>
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
};

struct Graph {
  const Runtime& ort;
  Owned<OrtSession> session;
};

// The typed arrays that one sequence has bound to a graph, by the name of the input or output.
struct Binding {
  std::shared_ptr<Graph> graph;
  Owned<OrtIoBinding> io;
  std::map<std::string, Napi::Reference<Napi::Value>> arrays;  // kept from the garbage collector while bound
};

// Graphs and bindings are externals that share ownership, so that none dies in the middle of a run.
template <typename T>
Napi::Value share(Napi::Env env, std::shared_ptr<T> value) {
  const auto drop = [](Napi::Env, std::shared_ptr<T>* held) { delete held; };
  return Napi::External<std::shared_ptr<T>>::New(env, new std::shared_ptr<T>(std::move(value)), drop);
}

template <typename T>
std::shared_ptr<T>& shared(const Napi::Value& value) {
  return *value.As<Napi::External<std::shared_ptr<T>>>().Data();
}

// A promise of one run, which happens on a thread of Node's pool.
struct Run : Napi::AsyncWorker {
  std::shared_ptr<Binding> binding;
  Napi::Promise::Deferred deferred;

  Run(Napi::Env env, std::shared_ptr<Binding> of) : AsyncWorker(env), binding(std::move(of)), deferred(env) {}
  void Execute() override {
    const Graph& graph = *binding->graph;
    graph.ort.check(graph.ort.api->RunWithBinding(graph.session.get(), nullptr, binding->io.get()));
  }
  void OnOK() override { deferred.Resolve(Env().Undefined()); }
  void OnError(const Napi::Error& error) override { deferred.Reject(error.Value()); }
};

// kernels(library): the names of the operators it has kernels for, separated by commas.
Napi::Value kernels(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), symbol<const char*()>(info[0].As<Napi::String>(), "gptoss_ops_kernels")());
}

// open(runtime, model, library, threads, config): a graph; 0 threads leave it to ONNX Runtime.
Napi::Value open(const Napi::CallbackInfo& info) {
  static const Runtime ort(info[0].As<Napi::String>());
  const auto text = [](const Napi::Value& value) -> std::string { return value.As<Napi::String>(); };
  OrtSessionOptions* options = nullptr;
  ort.check(ort.api->CreateSessionOptions(&options));
  const Owned<OrtSessionOptions> owner(options, ort.api->ReleaseSessionOptions);
  ort.check(ort.api->SetSessionLogSeverityLevel(options, kLogErrors));
  ort.check(ort.api->SetInterOpNumThreads(options, 1));  // the graph is one chain of large ops
  const int threads = info[3].As<Napi::Number>();
  if (threads > 0) ort.check(ort.api->SetIntraOpNumThreads(options, threads));
  for (const auto& [key, value] : info[4].As<Napi::Object>())  // first: the library reads them while it registers
    ort.check(ort.api->AddSessionConfigEntry(options, text(key).c_str(), text(value).c_str()));
  ort.check(ort.api->RegisterCustomOpsLibrary_V2(options, text(info[2]).c_str()));
  OrtSession* session = nullptr;
  ort.check(ort.api->CreateSession(ort.env, text(info[1]).c_str(), options, &session));
  return share(info.Env(), std::make_shared<Graph>(Graph{ort, {session, ort.api->ReleaseSession}}));
}

// close(graph): frees it as soon as nothing is bound to it any more.
void close(const Napi::CallbackInfo& info) { shared<Graph>(info[0]).reset(); }

// binding(graph): with nothing bound yet.
Napi::Value binding(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Graph> graph = shared<Graph>(info[0]);
  OrtIoBinding* io = nullptr;
  graph->ort.check(graph->ort.api->CreateIoBinding(graph->session.get(), &io));
  return share(info.Env(), std::shared_ptr<Binding>(new Binding{graph, {io, graph->ort.api->ReleaseIoBinding}, {}}));
}

// bind(binding, isOutput, name, elementType, array, shape): `array` is the memory that the graph reads or writes.
void bind(const Napi::CallbackInfo& info) {
  Binding& binding = *shared<Binding>(info[0]);
  const Runtime& ort = binding.graph->ort;
  const std::string name = info[2].As<Napi::String>();
  const auto array = info[4].As<Napi::TypedArray>();
  const auto sizes = info[5].As<Napi::Array>();
  std::vector<int64_t> shape;
  for (uint32_t i = 0; i < sizes.Length(); ++i) shape.push_back(sizes.Get(i).As<Napi::Number>());
  char* data = static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  OrtValue* value = nullptr;
  ort.check(ort.api->CreateTensorWithDataAsOrtValue(ort.memory, data, array.ByteLength(), shape.data(), shape.size(),
                                                    info[3].As<Napi::Number>(), &value));
  const Owned<OrtValue> owner(value, ort.api->ReleaseValue);  // the binding takes its own share
  const auto bind = info[1].As<Napi::Boolean>() ? ort.api->BindOutput : ort.api->BindInput;
  ort.check(bind(binding.io.get(), name.c_str(), value));
  binding.arrays[name] = Napi::Reference<Napi::Value>::New(array, 1);
}

// run(binding): a promise kept once the bound outputs are written.
Napi::Value run(const Napi::CallbackInfo& info) {
  Run* run = new Run(info.Env(), shared<Binding>(info[0]));  // deletes itself when it is done
  run->Queue();
  return run->deferred.Promise();
}

// Calls `function`; what it throws becomes a JavaScript error.
template <auto function>
auto guarded(const Napi::CallbackInfo& info) {
  try {
    return function(info);
  } catch (const std::runtime_error& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) { exports[name] = Napi::Function::New(env, function); };
  add("kernels", guarded<kernels>);
  add("open", guarded<open>);
  add("close", guarded<close>);
  add("binding", guarded<binding>);
  add("bind", guarded<bind>);
  add("run", guarded<run>);
  return exports;
}

}  // namespace

NODE_API_MODULE(gptoss_ort, init)

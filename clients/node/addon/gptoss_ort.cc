// A Node addon that runs a package's graph with libgptoss_ops registered, which onnxruntime-node
// cannot do. It drives the ONNX Runtime that onnxruntime-node ships, through its C API and off the
// main thread. What it throws becomes a JavaScript error (NODE_ADDON_API_CPP_EXCEPTIONS_ALL).
#include <dlfcn.h>
#include <napi.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ort_api.h"

namespace {

// Severity "fatal": an error becomes an exception, and a line of ONNX Runtime's own would come
// before ours.
constexpr int kSilent = 4;
constexpr int kDeviceAllocator = 0;
constexpr int kDefaultMemory = 0;
const std::map<std::string, int> kElementTypes{
    {"float32", 1}, {"int64", 7}, {"float16", 10}, {"bfloat16", 16}};

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

  explicit Runtime(const std::string& path)
      : api(symbol<const OrtApiBase*()>(path, "OrtGetApiBase")()->GetApi(18)) {
    if (api == nullptr)
      throw std::runtime_error(path + ": found an older ONNX Runtime, expected 1.18 or newer");
    check(api->CreateEnv(kSilent, "gptoss-node", &env));
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

std::string text(const Napi::Value& value) {
  return value.As<Napi::String>();
}

int element_type(const std::string& name) {
  const auto found = kElementTypes.find(name);
  if (found == kElementTypes.end()) {
    throw std::runtime_error("element type: found " + name +
                             ", expected float32, float16, bfloat16 or int64");
  }
  return found->second;
}

// The typed arrays that one sequence has bound to a graph, by the name of the input or output.
struct Binding {
  const Runtime& ort;
  const std::shared_ptr<OrtSession> session;
  const Owned<OrtIoBinding> io =
      ort.make(ort.api->ReleaseIoBinding, ort.api->CreateIoBinding, session.get());
  // Kept from the garbage collector while bound. An input and an output may have one name.
  std::map<std::pair<bool, std::string>, Napi::Reference<Napi::TypedArray>> arrays = {};
  bool is_running = false;

  // bind(out, name, elementType, array, dims): `array` is the memory that the graph reads or
  // writes.
  void bind(const Napi::CallbackInfo& info) {
    refuse_while_running();
    const bool out = info[0].As<Napi::Boolean>();
    const std::string name = text(info[1]);
    const auto array = info[3].As<Napi::TypedArray>();
    const auto sizes = info[4].As<Napi::Array>();
    std::vector<int64_t> shape;
    for (uint32_t i = 0; i < sizes.Length(); ++i) shape.push_back(sizes.Get(i).As<Napi::Number>());
    char* data = static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
    const auto value =
        ort.make(ort.api->ReleaseValue, ort.api->CreateTensorWithDataAsOrtValue, ort.memory, data,
                 array.ByteLength(), shape.data(), shape.size(), element_type(text(info[2])));
    const auto bind_value = out ? ort.api->BindOutput : ort.api->BindInput;
    ort.check(bind_value(io.get(), name.c_str(), value.get()));  // takes its own share
    arrays[{out, name}] = Napi::Reference<Napi::TypedArray>::New(array, 1);
  }

  // Refuses to run on memory that is in use, or that its array has given away: to a worker, say, or
  // to a transfer.
  void begin_run() {
    refuse_while_running();
    for (const auto& [key, array] : arrays) {
      if (array.Value().ArrayBuffer().IsDetached())
        throw std::runtime_error(key.second +
                                 ": found an array whose memory was transferred, expected its own");
    }
    is_running = true;
  }

  void refuse_while_running() const {
    if (is_running)
      throw std::runtime_error("binding: found a call running on it, expected one at a time");
  }
};

// A promise of one run, which happens on a thread of Node's pool.
struct Run : Napi::AsyncWorker {
  const std::shared_ptr<Binding> binding;
  const Napi::Promise::Deferred deferred;

  Run(Napi::Env env, std::shared_ptr<Binding> of)
      : AsyncWorker(env), binding(std::move(of)), deferred(env) {}
  void Execute() override {
    binding->ort.check(
        binding->ort.api->RunWithBinding(binding->session.get(), nullptr, binding->io.get()));
  }
  void OnOK() override {
    binding->is_running = false;
    deferred.Resolve(Env().Undefined());
  }
  void OnError(const Napi::Error& error) override {
    binding->is_running = false;
    deferred.Reject(error.Value());
  }
};

// kernels(library): the names of the operators it has kernels for, separated by commas.
Napi::Value kernels(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(),
                           symbol<const char*()>(text(info[0]), "gptoss_ops_kernels")());
}

// open(runtime, model, library, threads, config): the methods of src/engine.ts's Engine.
Napi::Value open(const Napi::CallbackInfo& info) {
  static const Runtime ort(text(info[0]));
  const auto options = ort.make(ort.api->ReleaseSessionOptions, ort.api->CreateSessionOptions);
  ort.check(ort.api->SetIntraOpNumThreads(options.get(), info[3].As<Napi::Number>()));
  // First: the library reads them while it registers.
  for (const auto& [key, value] : info[4].As<Napi::Object>())
    ort.check(
        ort.api->AddSessionConfigEntry(options.get(), text(key).c_str(), text(value).c_str()));
  ort.check(ort.api->RegisterCustomOpsLibrary_V2(options.get(), text(info[2]).c_str()));
  const std::string model = text(info[1]);
  auto made = ort.make(ort.api->ReleaseSession, ort.api->CreateSession, ort.env, model.c_str(),
                       options.get());
  // Bindings and runs share the session, so that closing frees it once nothing uses it any more.
  const auto open = std::make_shared<std::shared_ptr<OrtSession>>(std::move(made));
  Napi::Object graph = Napi::Object::New(info.Env());
  graph["newBinding"] = Napi::Function::New(info.Env(), [open](const Napi::CallbackInfo& info) {
    const std::shared_ptr<Binding> binding(new Binding{ort, *open});
    Napi::Object made = Napi::Object::New(info.Env());
    made["bind"] = Napi::Function::New(
        info.Env(), [binding](const Napi::CallbackInfo& info) { binding->bind(info); });
    made["run"] =
        Napi::Function::New(info.Env(), [binding](const Napi::CallbackInfo& info) -> Napi::Value {
          binding->begin_run();
          Run* run = new Run(info.Env(), binding);  // deletes itself when it is done
          run->Queue();
          return run->deferred.Promise();
        });
    return made;
  });
  graph["close"] =
      Napi::Function::New(info.Env(), [open](const Napi::CallbackInfo&) { open->reset(); });
  return graph;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports["kernels"] = Napi::Function::New(env, kernels);
  exports["open"] = Napi::Function::New(env, open);
  return exports;
}

}  // namespace

NODE_API_MODULE(gptoss_ort, init)

// RegisterCustomOps: hands the operators to one session of one ONNX Runtime.
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "machine/activations.h"
#include "machine/cpu_features.h"
#include "abi/error.h"
#include "abi/gptoss_ops.h"
#include "abi/operators.h"

namespace gptoss {
namespace {

constexpr uint32_t kOldestApiVersion =
    1;  // every ONNX Runtime answers it, and it can make a status

OrtCustomOpDomain* create_domain(const OrtApi& api, const Domain& domain) {
  OrtCustomOpDomain* created = nullptr;
  check(api, api.CreateCustomOpDomain(domain.name, &created));
  const auto release = api.ReleaseCustomOpDomain;
  std::unique_ptr<OrtCustomOpDomain, decltype(release)> owner(created, release);
  for (const OrtCustomOp* op : domain.operators) check(api, api.CustomOpDomain_Add(created, op));
  return owner.release();
}

// A domain is created once and kept for good, because sessions hold pointers to it: once for each
// activation mode and for each ONNX Runtime in the process (there can be two, a wheel's and a C++
// program's), told apart by their API tables. The map is never destroyed: sessions may end after it
// would be, and leak checkers see what it holds.
OrtCustomOpDomain* domain_for(const OrtApi& api, Activations activations, const Domain& domain) {
  static std::mutex mutex;
  static auto& created =
      *new std::map<std::tuple<const OrtApi*, Activations, std::string>, OrtCustomOpDomain*>;
  const std::lock_guard<std::mutex> lock(mutex);
  OrtCustomOpDomain*& entry = created[{&api, activations, domain.name}];
  if (entry == nullptr) entry = create_domain(api, domain);
  return entry;
}

OrtStatus* refuse_old_runtime(const OrtApiBase& base) {
  const std::string needed = std::to_string(kOrtApiVersion);
  const std::string message = "gptoss_ops: ONNX Runtime is " +
                              std::string(base.GetVersionString()) + ", expected 1." + needed +
                              " or newer (C API " + needed + ")";
  return base.GetApi(kOldestApiVersion)->CreateStatus(ORT_NOT_IMPLEMENTED, message.c_str());
}

}  // namespace
}  // namespace gptoss

OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace gptoss;
  const OrtApi* api = base->GetApi(kOrtApiVersion);
  if (api == nullptr) return refuse_old_runtime(*base);
  return guarded(*api, [&] {
    cpu_level();  // throws where GPTOSS_CPU_LEVEL cannot be honoured
    const Activations activations = session_activations(*api, *options);
    for (const Domain& domain : domains(activations)) {
      if (domain.operators.empty()) continue;
      check(*api, api->AddCustomOpDomain(options, domain_for(*api, activations, domain)));
    }
  });
}

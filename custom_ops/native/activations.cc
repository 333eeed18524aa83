#include "activations.h"

#include "error.h"

namespace gptoss {
namespace {

constexpr const char* kEntry = "gptoss.activations";

}  // namespace

const char* name_of(Activations activations) noexcept {
  switch (activations) {
    case Activations::exact: return "exact";
    case Activations::bf16: return "bf16";
    case Activations::int8: return "int8";
  }
  return "";
}

Activations activations_named(const std::string& name) {
  std::string known;
  for (const Activations activations : kActivations) {
    if (name == name_of(activations)) return activations;
    known += (known.empty() ? "" : ", ") + std::string(name_of(activations));
  }
  throw Error(ORT_INVALID_ARGUMENT, std::string("gptoss_ops: session config entry '") + kEntry + "': found '" +
                                        name + "', expected one of " + known);
}

Activations session_activations(const OrtApi& api, const OrtSessionOptions& options) {
  int is_set = 0;
  check(api, api.HasSessionConfigEntry(&options, kEntry, &is_set));
  if (!is_set) return Activations::exact;
  size_t size = 0;  // with the terminating zero
  check(api, api.GetSessionConfigEntry(&options, kEntry, nullptr, &size));
  std::string value(size, '\0');
  check(api, api.GetSessionConfigEntry(&options, kEntry, value.data(), &size));
  value.resize(size == 0 ? 0 : size - 1);
  return activations_named(value);
}

}  // namespace gptoss

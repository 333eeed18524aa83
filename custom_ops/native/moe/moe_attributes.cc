#include "moe/moe_attributes.h"

#include <cmath>

#include "abi/node_attributes.h"

namespace gptoss {
namespace {

struct NamedFunction {
  const char* name;
  ExpertFunction function;
};

constexpr NamedFunction kFunctions[] = {{"swiglu", ExpertFunction::swiglu},
                                        {"gelu", ExpertFunction::gelu},
                                        {"gelu_tanh", ExpertFunction::gelu_tanh},
                                        {"relu", ExpertFunction::relu},
                                        {"silu", ExpertFunction::silu}};

ExpertFunction read_function(const NodeAttributes& attributes) {
  const std::string found = attributes.text("activation", "swiglu");
  std::string names;
  for (const NamedFunction& known : kFunctions) {
    if (found == known.name) return known.function;
    names += std::string(names.empty() ? "" : ", ") + known.name;
  }
  attributes.reject("activation", "'" + found + "'", "one of " + names);
}

float finite(const NodeAttributes& attributes, const char* name, float value) {
  if (!std::isfinite(value)) attributes.reject(name, std::to_string(value), "a finite number");
  return value;
}

}  // namespace

std::string MoEAttributes::spelled(const char* legend) const {
  std::string text = legend;
  const size_t place = text.find("2I");
  if (!activation.gated() && place != std::string::npos) text.erase(place, 1);
  return text;
}

MoEAttributes read_moe_attributes(const OrtApi& api, const OrtKernelInfo& info, const char* op,
                                  bool layouts) {
  const NodeAttributes attributes(api, info, op);
  const int64_t top_k = attributes.integer("top_k");
  if (top_k < 1) attributes.reject("top_k", std::to_string(top_k), "at least 1");
  ExpertActivation activation{};
  activation.function = read_function(attributes);
  activation.alpha = finite(attributes, "alpha", attributes.number("alpha"));
  activation.limit = attributes.number("limit");
  if (!(activation.limit >= 0))
    attributes.reject("limit", std::to_string(activation.limit), "at least 0");
  activation.beta = finite(attributes, "beta", attributes.number("beta", 1.0f));
  activation.interleaved = !layouts || attributes.flag("interleaved", true);
  return {static_cast<size_t>(top_k), attributes.flag("normalize", true), activation};
}

}  // namespace gptoss

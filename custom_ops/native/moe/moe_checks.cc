#include "moe/moe_checks.h"

#include <cmath>
#include <string>

namespace gptoss {
namespace {

[[noreturn]] void reject_attribute(const char* op, const char* name, const std::string& found,
                                   const char* expected) {
  throw Error(ORT_INVALID_ARGUMENT,
              std::string(op) + ": attribute '" + name + "': found " + found + ", expected " + expected);
}

float read_float(const OrtApi& api, const OrtKernelInfo& info, const char* name) {
  float value = 0;
  check(api, api.KernelInfoGetAttribute_float(&info, name, &value));
  return value;
}

}  // namespace

MoEAttributes read_moe_attributes(const OrtApi& api, const OrtKernelInfo& info, const char* op) {
  int64_t top_k = 0;
  check(api, api.KernelInfoGetAttribute_int64(&info, "top_k", &top_k));
  const float alpha = read_float(api, info, "alpha"), limit = read_float(api, info, "limit");
  if (top_k < 1) reject_attribute(op, "top_k", std::to_string(top_k), "at least 1");
  if (!std::isfinite(alpha)) reject_attribute(op, "alpha", std::to_string(alpha), "a finite number");
  if (!(limit >= 0)) reject_attribute(op, "limit", std::to_string(limit), "at least 0");
  return {static_cast<size_t>(top_k), alpha, limit};
}

void expect_shape(const Context& context, size_t index, const Shape& expected, const char* legend) {
  const Shape found = context.shape(index);
  if (found == expected) return;
  context.reject(index, "shape " + describe(found), "shape " + describe(expected) + " = " + legend);
}

void expect_rank(const Context& context, size_t index, const Shape& found, size_t rank, const char* legend) {
  if (found.size() == rank) return;
  context.reject(index, "shape " + describe(found), "rank " + std::to_string(rank) + " " + legend);
}

void expect_experts(const Context& context, size_t index, const Shape& logits, const MoEAttributes& moe) {
  if (logits[1] >= static_cast<int64_t>(moe.top_k)) return;
  context.reject(index, "shape " + describe(logits),
                 "(N, E) with at least top_k = " + std::to_string(moe.top_k) + " experts");
}

Routing route_checked(const Context& context, size_t index, const Input<float>& logits, const MoEAttributes& moe) {
  const auto tokens = static_cast<size_t>(logits.shape[0]), experts = static_cast<size_t>(logits.shape[1]);
  for (size_t i = 0; i < tokens * experts; ++i) {
    if (!std::isnan(logits.data[i])) continue;
    context.reject(index, "NaN for token " + std::to_string(i / experts) + ", expert " + std::to_string(i % experts),
                   "numbers");
  }
  return route(logits.data, tokens, experts, moe.top_k);
}

}  // namespace gptoss

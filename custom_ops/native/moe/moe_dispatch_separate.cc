#include "moe/moe_dispatch_separate.h"

#include <string>
#include <vector>

#include "abi/node_attributes.h"
#include "machine/cpu_features.h"
#include "moe/moe_checks.h"
#include "moe/moe_dense.h"

namespace gptoss {
namespace {

constexpr const char* kOp = "MoEDispatchSeparate";
constexpr size_t kMatrices = 3;  // of an expert: gate, up, down

enum { kHidden, kRouterLogits, kWeights };

// N tokens, Hd hidden size, E experts, I expert width.
struct Sizes {
  int64_t tokens, hidden, experts, width;
};

// The sizes that hidden, router_logits and the first gate state; other inputs must agree with them.
Sizes checked_sizes(const Context& context, const MoEAttributes& moe) {
  const Shape hidden = context.shape(kHidden);
  const Shape logits = context.shape(kRouterLogits);
  const Shape gate = context.shape(kWeights);
  expect_rank(context, kHidden, hidden, 2, "(N, Hd)", moe);
  expect_rank(context, kRouterLogits, logits, 2, "(N, E)", moe);
  expect_experts(context, kRouterLogits, logits, moe);
  if (hidden[1] == 0)
    context.reject(kHidden, "shape " + describe(hidden), "(N, Hd) with Hd at least 1");
  expect_shape(context, kRouterLogits, {hidden[0], logits[1]}, "(N, E)", moe);
  const auto experts = static_cast<size_t>(logits[1]);
  const size_t weights = context.input_count() - kWeights;
  if (weights != kMatrices * experts) {
    context.reject(kWeights, std::to_string(weights) + " matrices",
                   std::to_string(kMatrices * experts) +
                       " = 3E: a gate, an up and a down matrix for each of the router's experts");
  }
  if (gate.size() != 2 || gate[0] == 0 || gate[1] != hidden[1])
    context.reject_named("gate_0", "shape " + describe(gate), "(I, Hd) with I at least 1");
  return {hidden[0], hidden[1], logits[1], gate[0]};
}

// The matrices of the experts that the call visits; of the others nobody asks, as there may be
// hundreds.
class Matrices {
 public:
  Matrices(const Context& context, const Sizes& sizes, const Routing& routing)
      : context_(context), experts_(static_cast<size_t>(sizes.experts)) {
    gate_up_.resize(2 * experts_);
    down_.resize(experts_);
    for (const ExpertGroup& group : routing.groups) {
      const size_t e = group.expert;
      gate_up_[2 * e] = matrix("gate", 0, e, {sizes.width, sizes.hidden}, "(I, Hd)");
      gate_up_[2 * e + 1] = matrix("up", 1, e, {sizes.width, sizes.hidden}, "(I, Hd)");
      down_[e] = matrix("down", 2, e, {sizes.hidden, sizes.width}, "(Hd, I)");
    }
  }

  const std::byte* const* gate_up() const { return gate_up_.data(); }
  const std::byte* const* down() const { return down_.data(); }

 private:
  const std::byte* matrix(const char* name, size_t place, size_t expert, const Shape& expected,
                          const char* legend) const {
    const size_t index = kWeights + place * experts_ + expert;
    const Shape found = context_.shape(index);
    if (found != expected) {
      context_.reject_named(name + ("_" + std::to_string(expert)), "shape " + describe(found),
                            "shape " + describe(expected) + " = " + legend);
    }
    return context_.data<std::byte>(index);
  }

  const Context& context_;
  size_t experts_;
  std::vector<const std::byte*> gate_up_, down_;
};

MoEAttributes read_attributes(const OrtApi& api, const OrtKernelInfo& info) {
  MoEAttributes attributes = read_moe_attributes(api, info, kOp, false);
  if (!attributes.activation.gated()) {
    const NodeAttributes node(api, info, kOp);
    node.reject("activation", "'" + node.text("activation", "") + "'", "none, or swiglu");
  }
  attributes.activation.interleaved = false;
  return attributes;
}

}  // namespace

MoEDispatchSeparateCompute::MoEDispatchSeparateCompute(const OrtApi& api, const OrtKernelInfo& info,
                                                       WeightType type, Activations activations)
    : attributes_(read_attributes(api, info)),
      type_(type),
      activations_(activations),
      rows_(linear_kernels(cpu_level(), type, activations != Activations::exact)) {}

void MoEDispatchSeparateCompute::compute(const Context& context) const {
  const Sizes sizes = checked_sizes(context, attributes_);
  float* output = context.output<float>(0, {sizes.tokens, sizes.hidden});
  if (sizes.tokens == 0) return;

  const Routing routing =
      route_checked(context, kRouterLogits, context.input<float>(kRouterLogits), attributes_);
  const Matrices matrices(context, sizes, routing);
  const auto tokens = static_cast<size_t>(sizes.tokens), hidden = static_cast<size_t>(sizes.hidden);
  const auto width = static_cast<size_t>(sizes.width);
  const bool few = tokens <= kFewTokens;
  const auto projection = [&](const DenseWeights& weights) {
    return DenseRows(rows_, mode_of_rows(activations_), weights,
                     rows_per_task(weights, few, routing.groups.size()));
  };
  const DenseRows gate_up = projection({nullptr, type_, 2 * width, hidden, matrices.gate_up(), 2});
  const DenseRows down = projection({nullptr, type_, hidden, width, matrices.down(), 1});
  const float* x = context.data<float>(kHidden);
  run_experts(context, {tokens, hidden, width, x, nullptr, nullptr, gate_up, down, few},
              attributes_, routing, output);
}

}  // namespace gptoss

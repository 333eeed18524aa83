#include "moe/moe_dispatch.h"

#include <algorithm>

#include "abi/node_attributes.h"
#include "machine/cpu_features.h"
#include "machine/tasks.h"
#include "moe/moe_checks.h"
#include "moe/moe_dense.h"

namespace gptoss {
namespace {

constexpr const char* kOp = "MoEDispatch";

enum { kHidden, kRouterLogits, kGateUp, kGateUpBias, kDown, kDownBias };

// N tokens, Hd hidden size, E experts, I expert width.
struct Sizes {
  int64_t tokens, hidden, experts, width;
};

// The sizes that hidden, router_logits and gate_up state; every other input must agree with them.
Sizes checked_sizes(const Context& context, const MoEAttributes& moe, bool transposed) {
  const Shape hidden = context.shape(kHidden);
  const Shape logits = context.shape(kRouterLogits);
  const Shape gate_up = context.shape(kGateUp);
  const char* legend = transposed ? "(E, 2I, Hd)" : "(E, Hd, 2I)";
  const auto rows_each = static_cast<int64_t>(moe.activation.rows_each());
  expect_rank(context, kHidden, hidden, 2, "(N, Hd)", moe);
  expect_rank(context, kRouterLogits, logits, 2, "(N, E)", moe);
  expect_rank(context, kGateUp, gate_up, 3, legend, moe);
  const int64_t rows = gate_up[transposed ? 1 : 2];
  const Sizes s{hidden[0], hidden[1], logits[1], rows / rows_each};
  expect_experts(context, kRouterLogits, logits, moe);
  if (s.hidden == 0)
    context.reject(kHidden, "shape " + describe(hidden), "(N, Hd) with Hd at least 1");
  if (s.width == 0 || rows % rows_each != 0) {
    context.reject(kGateUp, "shape " + describe(gate_up),
                   moe.spelled(legend) + " with I at least 1");
  }
  const auto expect_weight = [&](size_t index, int64_t outputs, int64_t inputs, const char* names) {
    const Shape by_rows = {s.experts, outputs, inputs}, by_columns = {s.experts, inputs, outputs};
    expect_shape(context, index, transposed ? by_rows : by_columns, names, moe);
  };
  expect_shape(context, kRouterLogits, {s.tokens, s.experts}, "(N, E)", moe);
  expect_weight(kGateUp, rows, s.hidden, legend);
  expect_shape_if_there(context, kGateUpBias, {s.experts, rows}, "(E, 2I)", moe);
  expect_weight(kDown, s.hidden, s.width, transposed ? "(E, Hd, I)" : "(E, I, Hd)");
  expect_shape_if_there(context, kDownBias, {s.experts, s.hidden}, "(E, Hd)", moe);
  return s;
}

// Columns of weights: pieces of rows are read the faster the longer they are, but all cores want
// some.
size_t columns_per_task(const DenseWeights& weights, bool few, size_t groups) {
  constexpr size_t kLeast = 256, kTasksACore = 2;
  if (!few) return kLeast;
  const size_t share = groups * weights.outputs / (kTasksACore * processors());
  return std::max(kLeast, share / kLeast * kLeast);
}

}  // namespace

MoEDispatchCompute::MoEDispatchCompute(const OrtApi& api, const OrtKernelInfo& info,
                                       WeightType type, Activations activations)
    : attributes_(read_moe_attributes(api, info, kOp, true)),
      transposed_(NodeAttributes(api, info, kOp).flag("transposed", false)),
      type_(type),
      activations_(activations),
      columns_(columns_kernel(cpu_level(), type)),
      rows_(linear_kernels(cpu_level(), type, activations != Activations::exact)) {}

void MoEDispatchCompute::compute(const Context& context) const {
  const Sizes sizes = checked_sizes(context, attributes_, transposed_);
  float* output = context.output<float>(0, {sizes.tokens, sizes.hidden});
  if (sizes.tokens == 0) return;

  const Routing routing =
      route_checked(context, kRouterLogits, context.input<float>(kRouterLogits), attributes_);
  const auto tokens = static_cast<size_t>(sizes.tokens), hidden = static_cast<size_t>(sizes.hidden);
  const auto width = static_cast<size_t>(sizes.width);
  const size_t rows = attributes_.activation.rows_each() * width;
  const DenseWeights up{context.data<std::byte>(kGateUp), type_, rows, hidden};
  const DenseWeights down{context.data<std::byte>(kDown), type_, hidden, width};
  const auto run = [&](const Projection& gate_up, const Projection& back) {
    const MoELayer layer{tokens,
                         hidden,
                         width,
                         context.data<float>(kHidden),
                         context.data<float>(kGateUpBias),
                         context.data<float>(kDownBias),
                         gate_up,
                         back,
                         tokens <= kFewTokens};
    run_experts(context, layer, attributes_, routing, output);
  };
  const bool few = tokens <= kFewTokens;
  const size_t groups = routing.groups.size();
  if (transposed_) {
    const auto projection = [&](const DenseWeights& weights) {
      return DenseRows(rows_, mode_of_rows(activations_), weights,
                       rows_per_task(weights, few, groups));
    };
    return run(projection(up), projection(down));
  }
  const auto projection = [&](const DenseWeights& weights) {
    return DenseColumns(columns_, activations_, weights, columns_per_task(weights, few, groups));
  };
  run(projection(up), projection(down));
}

}  // namespace gptoss

#include "moe/moe_dispatch_mxfp4.h"

#include <algorithm>

#include "machine/aligned_bytes.h"
#include "machine/cpu_features.h"
#include "moe/moe_checks.h"
#include "machine/tasks.h"

namespace gptoss {
namespace {

enum {
  kHidden,
  kRouterLogits,
  kGateUpBlocks,
  kGateUpScales,
  kGateUpBias,
  kDownBlocks,
  kDownScales,
  kDownBias
};

// Up to so many tokens an expert, on average, weights are read in long runs.
constexpr size_t kFewTokensAnExpert = 8;

// Outputs of a task with many tokens: two panels, and even shares of the work.
constexpr size_t kManyOutputs = 64;

// Each group of tokens is packed and multiplied by the kernel for its size.
class Mxfp4Projection final : public Projection {
 public:
  Mxfp4Projection(const Mxfp4Kernels& kernels, size_t outputs_per_task, const uint8_t* blocks,
                  const uint8_t* scales, size_t outputs, size_t width)
      : kernels_(kernels),
        outputs_per_task_(outputs_per_task),
        blocks_(blocks),
        scales_(scales),
        outputs_(outputs),
        width_(width),
        token_bytes_(bytes_of_token(kernels, width)) {}

  size_t tile() const noexcept override { return kernels_.many->tile; }
  size_t packed_bytes(size_t tokens) const noexcept override { return tokens * token_bytes_; }
  size_t scratch_bytes(size_t tokens) const noexcept override {
    return std::max(kernels_.few->scratch_bytes(std::min(tokens, kernels_.few_tokens), width_),
                    kernels_.many->scratch_bytes(tokens, width_));
  }
  size_t outputs_per_task() const noexcept override { return outputs_per_task_; }

  void pack(const float* x, size_t first, size_t count, const TokenPlace& place,
            std::byte* packed) const noexcept override {
    kernel_for(place.count)
        .pack(x, first, count, width_, place.index, packed + place.first * token_bytes_);
  }

  void multiply(size_t expert, size_t first, size_t outputs, const PackedTokens& tokens,
                std::byte* scratch, float* out, size_t stride) const noexcept override {
    const size_t block = (expert * outputs_ + first) * (width_ / kBlock);
    kernel_for(tokens.count)
        .multiply({blocks_ + block * kBlockBytes, scales_ + block, outputs, width_},
                  {tokens.data + tokens.first * token_bytes_, 0, tokens.count}, scratch, out,
                  stride);
  }

 private:
  const Mxfp4Kernel& kernel_for(size_t tokens) const noexcept {
    return tokens <= kernels_.few_tokens ? *kernels_.few : *kernels_.many;
  }

  // Room for a token in either kernel's order, in whole cache lines.
  static size_t bytes_of_token(const Mxfp4Kernels& kernels, size_t width) {
    constexpr size_t kLine = AlignedBytes::kAlignment;
    const size_t few = kernels.few->packed_bytes(1, width), tile = kernels.many->tile;
    const size_t most = std::max(few, (kernels.many->packed_bytes(tile, width) + tile - 1) / tile);
    return (most + kLine - 1) / kLine * kLine;
  }

  const Mxfp4Kernels& kernels_;
  size_t outputs_per_task_;
  const uint8_t* blocks_;  // (E, outputs, width / 32, 16)
  const uint8_t* scales_;  // (E, outputs, width / 32)
  size_t outputs_, width_;
  size_t token_bytes_;
};

// N tokens, Hd hidden size, E experts, I expert width.
struct Sizes {
  int64_t tokens, hidden, experts, width;
};

// The sizes that hidden, router_logits and gate_up_scales state; every other input must agree with
// them.
Sizes read_sizes(const Context& context, const MoEAttributes& moe) {
  const Shape hidden = context.shape(kHidden);
  const Shape logits = context.shape(kRouterLogits);
  const Shape scales = context.shape(kGateUpScales);
  expect_rank(context, kHidden, hidden, 2, "(N, Hd)", moe);
  expect_rank(context, kRouterLogits, logits, 2, "(N, E)", moe);
  expect_rank(context, kGateUpScales, scales, 3, "(E, 2I, Hd/32)", moe);
  const auto rows_each = static_cast<int64_t>(moe.activation.rows_each());
  const Sizes sizes{hidden[0], hidden[1], logits[1], scales[1] / rows_each};
  if (sizes.hidden == 0 || sizes.hidden % int64_t{kBlock} != 0) {
    context.reject(kHidden, "shape " + describe(hidden), "(N, Hd) with Hd a multiple of 32");
  }
  expect_experts(context, kRouterLogits, logits, moe);
  if (scales[1] == 0 || scales[1] % (rows_each * int64_t{kBlock}) != 0) {
    context.reject(kGateUpScales, "shape " + describe(scales),
                   moe.spelled("(E, 2I, Hd/32)") + " with I a multiple of 32");
  }
  return sizes;
}

void check_shapes(const Context& context, const Sizes& s, const MoEAttributes& moe) {
  const int64_t hidden_blocks = s.hidden / int64_t{kBlock},
                width_blocks = s.width / int64_t{kBlock};
  const int64_t rows = static_cast<int64_t>(moe.activation.rows_each()) * s.width;
  const auto expect = [&](size_t index, const Shape& expected, const char* legend) {
    expect_shape(context, index, expected, legend, moe);
  };
  constexpr int64_t kBytes = kBlockBytes;
  expect(kRouterLogits, {s.tokens, s.experts}, "(N, E)");
  expect(kGateUpBlocks, {s.experts, rows, hidden_blocks, kBytes}, "(E, 2I, Hd/32, 16)");
  expect(kGateUpScales, {s.experts, rows, hidden_blocks}, "(E, 2I, Hd/32)");
  expect_shape_if_there(context, kGateUpBias, {s.experts, rows}, "(E, 2I)", moe);
  expect(kDownBlocks, {s.experts, s.hidden, width_blocks, kBytes}, "(E, Hd, I/32, 16)");
  expect(kDownScales, {s.experts, s.hidden, width_blocks}, "(E, Hd, I/32)");
  expect_shape_if_there(context, kDownBias, {s.experts, s.hidden}, "(E, Hd)", moe);
}

}  // namespace

MoEDispatchMXFP4::MoEDispatchMXFP4(const OrtApi& api, const OrtKernelInfo& info,
                                   Activations activations)
    : attributes_(read_moe_attributes(api, info, kName, false)),
      kernels_(mxfp4_kernels(activations, cpu_level())) {}

void MoEDispatchMXFP4::compute(const Context& context) const {
  const Sizes sizes = read_sizes(context, attributes_);
  check_shapes(context, sizes, attributes_);
  float* output = context.output<float>(0, {sizes.tokens, sizes.hidden});
  if (sizes.tokens == 0) return;

  const Routing routing =
      route_checked(context, kRouterLogits, context.input<float>(kRouterLogits), attributes_);
  const auto tokens = static_cast<size_t>(sizes.tokens), hidden = static_cast<size_t>(sizes.hidden);
  const auto width = static_cast<size_t>(sizes.width);
  const bool few = routing.slots.size() <= kFewTokensAnExpert * routing.groups.size();
  const auto task = [&](size_t outputs, size_t inputs) {
    const size_t row_bytes = inputs / kBlock * (kBlockBytes + 1);
    constexpr size_t kRunsACore =
        8;  // all are of one length: more than a few, so that the cores end together
    return few ? rows_of_run(routing.groups.size() * outputs, row_bytes, kManyOutputs, kRunsACore)
               : kManyOutputs;
  };
  const auto bytes = [&](size_t index) { return context.data<uint8_t>(index); };
  const auto floats = [&](size_t index) { return context.data<float>(index); };
  const size_t rows = attributes_.activation.rows_each() * width;
  const Mxfp4Projection gate_up(kernels_, task(rows, hidden), bytes(kGateUpBlocks),
                                bytes(kGateUpScales), rows, hidden);
  const Mxfp4Projection down(kernels_, task(hidden, width), bytes(kDownBlocks), bytes(kDownScales),
                             hidden, width);
  const MoELayer layer{
      tokens,  hidden, width, floats(kHidden), floats(kGateUpBias), floats(kDownBias),
      gate_up, down,   few};
  run_experts(context, layer, attributes_, routing, output);
}

}  // namespace gptoss

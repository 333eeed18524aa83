#include "moe/moe_dispatch.h"

#include "machine/cpu_features.h"
#include "moe/moe_checks.h"

namespace gptoss {
namespace {

enum { kHidden, kRouterLogits, kGateUp, kGateUpBias, kDown, kDownBias };

class DenseProjection final : public Projection {
 public:
  DenseProjection(DenseMultiply multiply, Activations activations, const void* weights, size_t element_bytes,
                  size_t outputs, size_t width)
      : multiply_(multiply), activations_(activations), weights_(static_cast<const std::byte*>(weights)),
        element_bytes_(element_bytes), outputs_(outputs), width_(width) {}

  size_t tile() const noexcept override { return 1; }
  size_t packed_bytes(size_t tokens) const noexcept override { return tokens * width_ * sizeof(float); }
  size_t scratch_bytes(size_t) const noexcept override { return 0; }
  size_t outputs_per_task() const noexcept override { return 256; }  // wide pieces of each row

  void pack(const float* x, size_t first, size_t count, size_t token, std::byte* packed) const noexcept override {
    round_activations(activations_, x, count, reinterpret_cast<float*>(packed) + token * width_ + first);
  }

  void multiply(size_t expert, size_t first, size_t outputs, const PackedTokens& tokens, std::byte*, float* out,
                size_t stride) const noexcept override {
    const std::byte* weights = weights_ + (expert * width_ * outputs_ + first) * element_bytes_;
    const float* x = reinterpret_cast<const float*>(tokens.data) + tokens.first * width_;
    multiply_({weights, outputs_ * element_bytes_, outputs, width_}, x, tokens.count, out, stride);
  }

 private:
  DenseMultiply multiply_;
  Activations activations_;
  const std::byte* weights_;  // (E, width, outputs)
  size_t element_bytes_, outputs_, width_;
};

// N tokens, Hd hidden size, E experts, I expert width.
struct Sizes {
  int64_t tokens, hidden, experts, width;
};

// The sizes that hidden, router_logits and gate_up state; every other input must agree with them.
Sizes checked_sizes(const Context& context, const MoEAttributes& moe) {
  const Shape hidden = context.shape(kHidden);
  const Shape logits = context.shape(kRouterLogits);
  const Shape gate_up = context.shape(kGateUp);
  expect_rank(context, kHidden, hidden, 2, "(N, Hd)");
  expect_rank(context, kRouterLogits, logits, 2, "(N, E)");
  expect_rank(context, kGateUp, gate_up, 3, "(E, Hd, 2I)");
  const Sizes s{hidden[0], hidden[1], logits[1], gate_up[2] / 2};
  expect_experts(context, kRouterLogits, logits, moe);
  if (s.hidden == 0) context.reject(kHidden, "shape " + describe(hidden), "(N, Hd) with Hd at least 1");
  if (s.width == 0 || gate_up[2] % 2 != 0) {
    context.reject(kGateUp, "shape " + describe(gate_up), "(E, Hd, 2I) with I at least 1");
  }
  expect_shape(context, kRouterLogits, {s.tokens, s.experts}, "(N, E)");
  expect_shape(context, kGateUp, {s.experts, s.hidden, 2 * s.width}, "(E, Hd, 2I)");
  expect_shape(context, kGateUpBias, {s.experts, 2 * s.width}, "(E, 2I)");
  expect_shape(context, kDown, {s.experts, s.width, s.hidden}, "(E, I, Hd)");
  expect_shape(context, kDownBias, {s.experts, s.hidden}, "(E, Hd)");
  return s;
}

}  // namespace

template <class T>
MoEDispatch<T>::MoEDispatch(const OrtApi& api, const OrtKernelInfo& info, Activations activations)
    : attributes_(read_moe_attributes(api, info, kName)), activations_(activations),
      multiply_(dense_kernel<T>(cpu_level())) {}

template <class T>
void MoEDispatch<T>::compute(const Context& context) const {
  const Sizes sizes = checked_sizes(context, attributes_);
  float* output = context.output<float>(0, {sizes.tokens, sizes.hidden});
  if (sizes.tokens == 0) return;

  const Routing routing = route_checked(context, kRouterLogits, context.input<float>(kRouterLogits), attributes_);
  const auto tokens = static_cast<size_t>(sizes.tokens), hidden = static_cast<size_t>(sizes.hidden);
  const auto width = static_cast<size_t>(sizes.width);
  const auto projection = [&](size_t index, size_t outputs, size_t inputs) {
    return DenseProjection(multiply_, activations_, context.data<T>(index), sizeof(T), outputs, inputs);
  };
  const DenseProjection gate_up = projection(kGateUp, 2 * width, hidden), down = projection(kDown, hidden, width);
  const MoELayer layer{tokens, hidden, width, context.data<float>(kHidden),
                       context.data<float>(kGateUpBias), context.data<float>(kDownBias), gate_up, down};
  run_experts(context, layer, attributes_, routing, output);
}

template class MoEDispatch<float>;
template class MoEDispatch<Float16>;
template class MoEDispatch<BFloat16>;

}  // namespace gptoss

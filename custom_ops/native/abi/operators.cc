#include "abi/operators.h"

#include "linear/linear.h"
#include "linear/linear_int8.h"
#include "linear/linear_packed.h"
#include "moe/moe_dispatch.h"
#include "moe/moe_dispatch_mxfp4.h"
#include "moe/moe_dispatch_separate.h"
#include "abi/op.h"
#include "abi/self_check.h"
#include "attention/sink_attention.h"

namespace gptoss {
namespace {

template <class Kernel>
const OrtCustomOp* op(Activations activations) {
  static const CustomOp<Kernel> exact(Activations::exact), bf16(Activations::bf16),
      int8(Activations::int8);
  switch (activations) {
    case Activations::bf16:
      return &bf16;
    case Activations::int8:
      return &int8;
    default:
      return &exact;
  }
}

// One name may stand for several kernels, one for each dtype: ONNX Runtime chooses by the inputs.
std::vector<Domain> table(Activations mode) {
  const std::vector<const OrtCustomOp*> kernels = {
      op<MoEDispatchFloat32>(mode),
      op<MoEDispatchFloat16>(mode),
      op<MoEDispatchBFloat16>(mode),
      op<MoEDispatchMXFP4>(mode),
      op<MoEDispatchSeparateFloat32>(mode),
      op<MoEDispatchSeparateFloat16>(mode),
      op<MoEDispatchSeparateBFloat16>(mode),
      op<SinkAttention<float>>(mode),
      op<SinkAttention<Float16>>(mode),
      op<SinkAttention<BFloat16>>(mode),
      op<LinearFloat32>(mode),
      op<LinearFloat16>(mode),
      op<LinearBFloat16>(mode),
      op<LinearInt8>(mode),
      op<LinearPacked>(mode),
  };
  return {{kDomain, kernels}, {kSelfCheckDomain, {op<SelfCheck>(mode)}}};
}

}  // namespace

const std::vector<Domain>& domains(Activations activations) {
  static const std::vector<Domain> exact = table(Activations::exact);
  static const std::vector<Domain> bf16 = table(Activations::bf16);
  static const std::vector<Domain> int8 = table(Activations::int8);
  switch (activations) {
    case Activations::bf16:
      return bf16;
    case Activations::int8:
      return int8;
    default:
      return exact;
  }
}

}  // namespace gptoss

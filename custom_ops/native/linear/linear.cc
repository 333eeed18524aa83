#include "linear/linear.h"

#include "abi/node_attributes.h"

namespace gptoss {
namespace {

enum { kX, kWeight, kBias };

// 8 bits would be no faster on weights of 16.
Activations no_less_than_bf16(Activations activations) {
  return activations == Activations::exact ? Activations::exact : Activations::bf16;
}

}  // namespace

LinearCompute::LinearCompute(const OrtApi& api, const OrtKernelInfo& info, WeightType type,
                             Activations activations)
    : transposed_(NodeAttributes(api, info, "Linear").flag("transposed", false)),
      type_(type),
      product_(linear_kernels(cpu_level(), type, activations != Activations::exact),
               no_less_than_bf16(activations)),
      transposed_product_(cpu_level(), type, no_less_than_bf16(activations)) {}

void LinearCompute::compute(const Context& context) const {
  const auto [tokens, depth, rows] = check_linear_shapes(context, kX, kWeight, kBias, transposed_);
  LinearCall call{};
  call.x = context.data<float>(kX);
  call.weight = context.data<unsigned char>(kWeight);
  call.bias = context.data<float>(kBias);
  call.y = context.output<float>(0, {static_cast<int64_t>(tokens), static_cast<int64_t>(rows)});
  call.tokens = tokens;
  call.depth = call.lanes = depth;
  call.rows = rows;
  call.row_bytes = (transposed_ ? rows : depth) * bytes_of(type_);
  if (transposed_) return transposed_product_.compute(context, call);
  product_.compute(context, call);
}

LinearKernels linear_kernels(CpuLevel level, WeightType type, bool rounded) {
#if defined(__x86_64__)
  if (level >= CpuLevel::amx && type == WeightType::bfloat16) return linear_amx(rounded);
  if (level >= CpuLevel::avx512_bf16 && type == WeightType::bfloat16 && rounded)
    return linear_avx512_bf16();
  if (level >= CpuLevel::avx512) return linear_avx512(type);
  if (level >= CpuLevel::avx2) return linear_avx2(type);
#endif
  static_cast<void>(level), static_cast<void>(rounded);  // elsewhere there is one level
  return linear_scalar(type);
}

}  // namespace gptoss

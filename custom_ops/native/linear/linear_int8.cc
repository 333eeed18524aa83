#include "linear/linear_int8.h"

#include <algorithm>
#include <limits>
#include <string>

namespace gptoss {
namespace {

enum { kX, kWeight, kScales, kBias };

void check_scales(const Context& context, size_t rows, size_t depth) {
  if (depth % kScaleBlock != 0) {
    const Shape x = context.shape(kX);
    context.reject(kX, "shape " + describe(x),
                   "(N, K) with K a multiple of " + std::to_string(kScaleBlock));
  }
  const Shape found = context.shape(kScales);
  const Shape expected = {static_cast<int64_t>(rows), static_cast<int64_t>(depth / kScaleBlock)};
  if (found != expected) context.reject(kScales, "shape " + describe(found), describe(expected));
}

// The most tokens for which AVX-512 is the faster, and not AMX tiles, which multiply bfloat16.
size_t tokens_without_tiles(CpuLevel level, Activations activations) {
  if (level < CpuLevel::amx) return std::numeric_limits<size_t>::max();
  switch (activations) {
    case Activations::bf16:
      return 16;
    case Activations::int8:
      return 32;
    default:
      return 24;
  }
}

}  // namespace

LinearInt8::LinearInt8(const OrtApi&, const OrtKernelInfo&, Activations activations)
    : vectors_(linear_int8_kernels(std::min(cpu_level(), CpuLevel::avx512_bf16), activations),
               activations),
      tiles_(linear_int8_kernels(cpu_level(), activations), activations),
      vector_tokens_(tokens_without_tiles(cpu_level(), activations)) {}

void LinearInt8::compute(const Context& context) const {
  const auto [tokens, depth, rows] = check_linear_shapes(context, kX, kWeight, kBias);
  check_scales(context, rows, depth);
  LinearCall call{};
  call.x = context.data<float>(kX);
  call.weight = context.data<unsigned char>(kWeight);
  call.scales = context.data<unsigned char>(kScales);
  call.bias = context.data<float>(kBias);
  call.y = context.output<float>(0, {static_cast<int64_t>(tokens), static_cast<int64_t>(rows)});
  call.tokens = tokens;
  call.depth = call.lanes = call.row_bytes = depth;
  call.rows = rows;
  (tokens <= vector_tokens_ ? vectors_ : tiles_).compute(context, call);
}

LinearKernels linear_int8_kernels(CpuLevel level, Activations activations) {
#if defined(__x86_64__)
  if (level >= CpuLevel::amx) return linear_int8_amx(activations);
  if (level >= CpuLevel::avx512_vnni) return linear_int8_vnni(activations);
  if (level >= CpuLevel::avx512) return linear_int8_avx512();
  if (level >= CpuLevel::avx2) return linear_int8_avx2(activations);
#endif
  static_cast<void>(level), static_cast<void>(activations);  // elsewhere there is one level
  return linear_int8_scalar();
}

}  // namespace gptoss

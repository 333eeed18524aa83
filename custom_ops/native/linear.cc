#include "linear.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace gptoss {
namespace {

enum { kX, kWeight, kBias };

constexpr size_t kTaskWeights = 1 << 15;  // weights that are worth waking a thread for
constexpr size_t kPassTokens = 560;       // tokens gathered at a time: bounds the memory, 6 MB at K = 2880

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

// Checks the shapes of all inputs, then reads their addresses.
LinearCall read_call(const Context& context, WeightType type) {
  const auto x = context.input<float>(kX);
  const auto weight = context.input<unsigned char>(kWeight);
  const auto bias = context.input<float>(kBias);
  if (x.shape.size() != 2) context.reject(kX, "shape " + describe(x.shape), "rank 2 (N, K)");
  const int64_t depth = x.shape[1];
  if (weight.shape.size() != 2 || weight.shape[1] != depth) {
    context.reject(kWeight, "shape " + describe(weight.shape), "(M, " + std::to_string(depth) + ")");
  }
  const int64_t rows = weight.shape[0];
  const bool has_bias = bias.data != nullptr || !bias.shape.empty();  // ONNX Runtime's empty tensors have no address
  if (has_bias && bias.shape != Shape{rows}) {
    context.reject(kBias, "shape " + describe(bias.shape), describe({rows}));
  }
  float* y = context.output<float>(0, {x.shape[0], rows});
  const auto width = static_cast<size_t>(depth);
  return {x.data, weight.data, bias.data, y, static_cast<size_t>(x.shape[0]), width, static_cast<size_t>(rows),
          width,  width * bytes_of(type)};
}

// The bits of the nearest bfloat16, ties to even; NaN stays NaN.
uint16_t bfloat16_bits(float value) noexcept {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  bits = nan ? bits | 0x00400000 : bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<uint16_t>(bits >> 16);
}

float float_of(uint32_t bits) noexcept {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

size_t lanes_of(TokenFormat format, size_t depth) {
  constexpr size_t kTileLanes = 16;
  const size_t pairs = ceil_div(depth, 2);
  switch (format) {
    case TokenFormat::float32: return depth;
    case TokenFormat::pairs: return pairs;
    case TokenFormat::tile_pairs: return kTileLanes * ceil_div(pairs, kTileLanes);
    case TokenFormat::tile_pairs_of_two_terms: return 2 * kTileLanes * ceil_div(pairs, kTileLanes);
  }
  return 0;
}

float rounded(float value) noexcept { return float_of(uint32_t{bfloat16_bits(value)} << 16); }

// What rounding took away; zero where that is not a number.
float remainder(float value) noexcept {
  const float nearest = rounded(value);
  return std::isfinite(nearest) ? value - nearest : 0.0f;
}

// Puts one token into `lanes`, which hold zeros, in `format`; all but tile_pairs_of_two_terms round it to bfloat16.
void round_token(const float* x, size_t depth, TokenFormat format, float* lanes) noexcept {
  if (format == TokenFormat::float32) {
    for (size_t k = 0; k < depth; ++k) lanes[k] = rounded(x[k]);
    return;
  }
  float* rest = lanes + lanes_of(format, depth) / 2;
  for (size_t k = 0; k < depth; k += 2) {
    const float a = x[k], b = k + 1 < depth ? x[k + 1] : 0.0f;
    lanes[k / 2] = float_of(uint32_t{bfloat16_bits(b)} << 16 | bfloat16_bits(a));
    if (format != TokenFormat::tile_pairs_of_two_terms) continue;
    rest[k / 2] = float_of(uint32_t{bfloat16_bits(remainder(b))} << 16 | bfloat16_bits(remainder(a)));
  }
}

// Tokens [first, first + tokens) of a call.
LinearCall slice(LinearCall call, size_t first, size_t tokens) {
  call.x += first * call.lanes;
  call.y += first * call.rows;
  call.tokens = tokens;
  return call;
}

// Gathers tile `tile` of the tokens of a call, as TokenTiles describes.
void pack_tile(const LinearCall& call, size_t tile, size_t width, float* packed) noexcept {
  float* out = packed + tile * width * call.lanes;
  const size_t first = tile * width;
  const size_t tokens = std::min(width, call.tokens - first);
  for (size_t lane = 0; lane < call.lanes; ++lane, out += width) {
    for (size_t t = 0; t < tokens; ++t) out[t] = call.x[(first + t) * call.lanes + lane];
    for (size_t t = tokens; t < width; ++t) out[t] = 0.0f;
  }
}

}  // namespace

void LinearCompute::compute(const Context& context) const {
  LinearCall call = read_call(context, type_);
  if (call.tokens == 0 || call.rows == 0) return;
  std::vector<float> bias;
  if (reinterpret_cast<uintptr_t>(call.bias) % alignof(float) != 0) {  // an initializer may lie anywhere in a file
    bias.resize(call.rows);
    std::memcpy(bias.data(), call.bias, call.rows * sizeof(float));
    call.bias = bias.data();
  }
  const bool few = call.tokens <= kernels_.vector_tokens || kernels_.blocked_product == nullptr;
  const TokenFormat format = few ? kernels_.vector_format : kernels_.blocked_format;
  std::vector<float> formatted;
  if (rounded_ || format != TokenFormat::float32) {
    call.lanes = lanes_of(format, call.depth);
    formatted.resize(call.tokens * call.lanes);
    context.parallel_for(call.tokens, [&](size_t n) noexcept {
      round_token(call.x + n * call.depth, call.depth, format, formatted.data() + n * call.lanes);
    });
    call.x = formatted.data();
  }
  if (few) return multiply_vectors(context, call);
  const size_t passes = ceil_div(call.tokens, kPassTokens);
  const size_t tokens = ceil_div(call.tokens, passes);
  for (size_t first = 0; first < call.tokens; first += tokens) {
    multiply_blocks(context, slice(call, first, std::min(tokens, call.tokens - first)));
  }
}

void LinearCompute::multiply_vectors(const Context& context, const LinearCall& call) const {
  const size_t task_rows = kVectorRows * ceil_div(kTaskWeights, std::max<size_t>(kVectorRows * call.depth, 1));
  context.parallel_for(ceil_div(call.rows, task_rows), [&](size_t task) noexcept {
    const size_t begin = task * task_rows;
    kernels_.matrix_vector(call, begin, std::min(begin + task_rows, call.rows));
  });
}

void LinearCompute::multiply_blocks(const Context& context, const LinearCall& call) const {
  const size_t count = ceil_div(call.tokens, kernels_.tile_width);
  const size_t width = ceil_div(call.tokens, count);  // tiles of nearly equal width
  std::vector<float> packed(count * width * call.lanes);
  context.parallel_for(count, [&](size_t tile) noexcept { pack_tile(call, tile, width, packed.data()); });

  const TokenTiles tiles{packed.data(), width, count};
  context.parallel_for(ceil_div(call.rows, kBlockRows), [&](size_t block) noexcept {
    alignas(64) static thread_local float panel[kPanelFloats];
    const size_t begin = block * kBlockRows;
    kernels_.blocked_product(call, tiles, begin, std::min(begin + kBlockRows, call.rows), panel);
  });
}

LinearKernels linear_kernels(CpuLevel level, WeightType type, bool rounded) {
#if defined(__x86_64__)
  if (level >= CpuLevel::amx && type == WeightType::bfloat16) return linear_amx(rounded);
  if (level >= CpuLevel::avx512_bf16 && type == WeightType::bfloat16 && rounded) return linear_avx512_bf16();
  if (level >= CpuLevel::avx512) return linear_avx512(type);
  if (level >= CpuLevel::avx2) return linear_avx2(type);
#endif
  static_cast<void>(level), static_cast<void>(rounded);  // elsewhere there is one level
  return linear_scalar(type);
}

}  // namespace gptoss

#include "linear/linear_product.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "machine/aligned_bytes.h"
#include "linear/linear_tokens.h"
#include "machine/tasks.h"

namespace gptoss {
namespace {

constexpr size_t kPassTokens =
    560;  // tokens gathered at a time: bounds the memory, 6 MB at K = 2880

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

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

LinearShapes check_linear_shapes(const Context& context, size_t x, size_t weight, size_t bias,
                                 bool transposed) {
  const Shape tokens = context.shape(x), weights = context.shape(weight);
  const auto biases = context.input<float>(bias);
  if (tokens.size() != 2) context.reject(x, "shape " + describe(tokens), "rank 2 (N, K)");
  const int64_t depth = tokens[1];
  if (weights.size() != 2 || weights[transposed ? 0 : 1] != depth) {
    const std::string size = std::to_string(depth);
    context.reject(weight, "shape " + describe(weights),
                   transposed ? "(" + size + ", M)" : "(M, " + size + ")");
  }
  const int64_t rows = weights[transposed ? 1 : 0];
  const bool has_bias =
      biases.data != nullptr || !biases.shape.empty();  // an empty tensor of ORT's has no address
  if (has_bias && biases.shape != Shape{rows})
    context.reject(bias, "shape " + describe(biases.shape), describe({rows}));
  return {static_cast<size_t>(tokens[0]), static_cast<size_t>(depth), static_cast<size_t>(rows)};
}

void LinearProduct::compute(const Context& context, LinearCall call) const {
  if (call.tokens == 0 || call.rows == 0) return;
  std::vector<float> bias;
  if (reinterpret_cast<uintptr_t>(call.bias) % alignof(float) !=
      0) {  // an initializer may lie anywhere in a file
    bias.resize(call.rows);
    std::memcpy(bias.data(), call.bias, call.rows * sizeof(float));
    call.bias = bias.data();
  }
  const bool few = call.tokens <= kernels_.vector_tokens || kernels_.blocked_product == nullptr;
  const TokenFormat format = few ? kernels_.vector_format : kernels_.blocked_format;
  AlignedBytes formatted;
  if (activations_ != Activations::exact || format != TokenFormat::float32) {
    const bool packed = format == TokenFormat::packed;
    const float* x = call.x;
    const TokenPacking& packing = few ? kernels_.packing : kernels_.blocked_packing;
    call.lanes = packed ? packing.lanes(call.depth) : lanes_of(format, call.depth);
    formatted = AlignedBytes(call.tokens * call.lanes * sizeof(float));
    float* out = reinterpret_cast<float*>(formatted.data());
    context.parallel_for(call.tokens, [&](size_t n) noexcept {
      const float* token = x + n * call.depth;
      if (packed) return packing.pack(token, call.depth, out + n * call.lanes);
      format_token(token, call.depth, format, activations_, out + n * call.lanes);
    });
    call.x = out;
  }
  if (few) return multiply_vectors(context, call);
  const size_t passes = ceil_div(call.tokens, kPassTokens);
  const size_t tokens = ceil_div(call.tokens, passes);
  for (size_t first = 0; first < call.tokens; first += tokens) {
    multiply_blocks(context, slice(call, first, std::min(tokens, call.tokens - first)));
  }
}

void LinearProduct::multiply_vectors(const Context& context, const LinearCall& call) const {
  const size_t scale_bytes = call.scales == nullptr ? 0 : call.depth / kScaleBlock * sizeof(float);
  run_rows(context, call.rows, call.row_bytes + scale_bytes, kVectorRows,
           [&](size_t begin, size_t end) noexcept { kernels_.matrix_vector(call, begin, end); });
}

void LinearProduct::multiply_blocks(const Context& context, const LinearCall& call) const {
  const size_t count = ceil_div(call.tokens, kernels_.tile_width);
  const size_t width = ceil_div(call.tokens, count);  // tiles of nearly equal width
  std::vector<float> packed(count * width * call.lanes);
  context.parallel_for(count,
                       [&](size_t tile) noexcept { pack_tile(call, tile, width, packed.data()); });

  const TokenTiles tiles{packed.data(), width, count};
  const size_t scale_bytes = call.scales == nullptr ? 0 : call.depth / kScaleBlock * sizeof(float);
  run_rows(context, call.rows, call.row_bytes + scale_bytes, kBlockRows,
           [&](size_t first, size_t end) noexcept {
             alignas(64) static thread_local float panel[kPanelFloats];
             for (size_t begin = first; begin < end; begin += kBlockRows) {
               kernels_.blocked_product(call, tiles, begin, std::min(begin + kBlockRows, end),
                                        panel);
             }
           });
}

}  // namespace gptoss

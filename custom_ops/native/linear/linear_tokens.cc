#include "linear/linear_tokens.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace gptoss {
namespace {

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

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

float rounded(float value) noexcept { return float_of(uint32_t{bfloat16_bits(value)} << 16); }

// What rounding took away; zero where that is not a number.
float remainder(float value) noexcept {
  const float nearest = rounded(value);
  return std::isfinite(nearest) ? value - nearest : 0.0f;
}

}  // namespace

size_t lanes_of(TokenFormat format, size_t depth) {
  constexpr size_t kTileLanes = 16;
  const size_t pairs = ceil_div(depth, 2);
  switch (format) {
    case TokenFormat::pairs: return pairs;
    case TokenFormat::tile_pairs: return kTileLanes * ceil_div(pairs, kTileLanes);
    case TokenFormat::tile_pairs_of_two_terms: return 2 * kTileLanes * ceil_div(pairs, kTileLanes);
    default: return depth;
  }
}

void format_token(const float* x, size_t depth, TokenFormat format, Activations activations, float* lanes) noexcept {
  if (format == TokenFormat::float32) return round_activations(activations, x, depth, lanes);
  const size_t count = lanes_of(format, depth);
  std::fill(lanes, lanes + count, 0.0f);
  float* rest = lanes + count / 2;
  for (size_t k = 0; k < depth; k += 2) {
    const float a = x[k], b = k + 1 < depth ? x[k + 1] : 0.0f;
    lanes[k / 2] = float_of(uint32_t{bfloat16_bits(b)} << 16 | bfloat16_bits(a));
    if (format != TokenFormat::tile_pairs_of_two_terms) continue;
    rest[k / 2] = float_of(uint32_t{bfloat16_bits(remainder(b))} << 16 | bfloat16_bits(remainder(a)));
  }
}

}  // namespace gptoss

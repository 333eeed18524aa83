#include "linear/linear_tokens.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "machine/bfloat16.h"

namespace gptoss {
namespace {

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

// Two values as bfloat16 in one lane.
float pair(float a, float b) noexcept {
  return float_of(uint32_t{bfloat16_bits(b)} << 16 | bfloat16_bits(a));
}

// What rounding took away; zero where that is not a number.
float remainder(float value) noexcept {
  const float nearest = round_to_bf16(value);
  return std::isfinite(nearest) ? value - nearest : 0.0f;
}

size_t terms_of(TokenFormat format) noexcept {
  if (format == TokenFormat::tile_pairs_of_three_terms) return 3;
  return format == TokenFormat::tile_pairs_of_two_terms ? 2 : 1;
}

// Two values at `lane`, and what is left of them at the same lane of the terms after.
void write_terms(float a, float b, size_t terms, size_t distance, float* lane) noexcept {
  for (size_t term = 0; term < terms; ++term) {
    lane[term * distance] = pair(a, b);
    a = remainder(a);
    b = remainder(b);
  }
}

}  // namespace

size_t lanes_of(TokenFormat format, size_t depth) {
  constexpr size_t kTileLanes = 16;
  const size_t pairs = ceil_div(depth, 2);
  switch (format) {
    case TokenFormat::pairs:
      return pairs;
    case TokenFormat::tile_pairs:
    case TokenFormat::tile_pairs_of_two_terms:
    case TokenFormat::tile_pairs_of_three_terms:
      return terms_of(format) * kTileLanes * ceil_div(pairs, kTileLanes);
    default:
      return depth;
  }
}

void format_token(const float* x, size_t depth, TokenFormat format, Activations activations,
                  float* lanes) noexcept {
  if (format == TokenFormat::float32) return round_activations(activations, x, depth, lanes);
  const size_t count = lanes_of(format, depth), terms = terms_of(format);
  std::fill(lanes, lanes + count, 0.0f);
  for (size_t k = 0; k < depth; k += 2) {
    const float a = x[k], b = k + 1 < depth ? x[k + 1] : 0.0f;
    write_terms(a, b, terms, count / terms, lanes + k / 2);
  }
}

void format_piece(const float* x, size_t first, size_t count, size_t depth, TokenFormat format,
                  Activations activations, float* lanes, size_t stride) noexcept {
  if (format == TokenFormat::float32) {
    constexpr size_t kBlock = 32;
    for (size_t k = 0; k < count; k += kBlock) {
      const size_t some = std::min(kBlock, count - k);
      float rounded[kBlock];
      round_activations(activations, x + k, some, rounded);
      for (size_t i = 0; i < some; ++i) lanes[(first + k + i) * stride] = rounded[i];
    }
    return;
  }
  const size_t terms = terms_of(format), term_lanes = lanes_of(format, depth) / terms;
  const bool last = first + count == depth;
  const size_t end = last ? term_lanes : (first + count) / 2;
  for (size_t lane = first / 2; lane < end; ++lane) {
    const size_t k = 2 * lane - first;
    const float a = k < count ? x[k] : 0.0f, b = k + 1 < count ? x[k + 1] : 0.0f;
    write_terms(a, b, terms, term_lanes * stride, lanes + lane * stride);
  }
}

}  // namespace gptoss

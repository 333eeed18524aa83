// The order of tokens that LinearPacked's vector kernels want.
#include <cstring>

#include "linear/linear_packed_kernels.h"

namespace gptoss {
namespace {

// Calls put(place, value) for each value of a token, as linear_packed.h says; the place is in
// float32 lanes.
template <size_t kWidth, class Put>
void in_order(const float* x, size_t depth, bool rounded, const Put& put) noexcept {
  constexpr size_t kGroup = 4 * kWidth;
  for (size_t first = 0; first < depth; first += kGroup) {
    float values[kGroup];
    const Activations kept = rounded ? Activations::bf16 : Activations::exact;
    round_activations(kept, x + first, kGroup, values);
    for (size_t i = 0; i < kGroup; ++i) {
      const size_t a = i / 16, h = i / 8 % 2, b = i / 2 % 4, p = i % 2;
      put(first + kWidth * (2 * h + p) + 4 * a + b, values[i]);
    }
  }
}

template <size_t kWidth, bool rounded>
void pack_floats(const float* x, size_t depth, float* lanes) noexcept {
  in_order<kWidth>(x, depth, rounded, [&](size_t at, float value) { lanes[at] = value; });
}

// Registers of p = 0 and p = 1 become one of pairs.
void pack_pairs(const float* x, size_t depth, float* lanes) noexcept {
  constexpr size_t kWidth = 16;
  auto* bytes = reinterpret_cast<unsigned char*>(lanes);
  in_order<kWidth>(x, depth, true, [&](size_t at, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const auto half = static_cast<uint16_t>(bits >> 16);
    const size_t pair = at / (2 * kWidth) * kWidth + at % kWidth;
    const size_t p = at / kWidth % 2;
    std::memcpy(bytes + 4 * pair + 2 * p, &half, sizeof half);
  });
}

size_t one_lane_a_value(size_t depth) noexcept { return depth; }
size_t one_lane_a_pair(size_t depth) noexcept { return depth / 2; }

}  // namespace

TokenPacking packed_floats_8(bool rounded) {
  return {one_lane_a_value, rounded ? pack_floats<8, true> : pack_floats<8, false>};
}

TokenPacking packed_floats_16(bool rounded) {
  return {one_lane_a_value, rounded ? pack_floats<16, true> : pack_floats<16, false>};
}

TokenPacking packed_pairs_16() { return {one_lane_a_pair, pack_pairs}; }

}  // namespace gptoss

// Biases by distance for attention_tiles.h; in an anonymous namespace like all that is compiled for
// single CPU levels.
#pragma once

#include <cstdint>

#include "attention/attention.h"

namespace gptoss {
namespace {

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Adds what a row has by distance to the scores of the keys that it sees, [begin, end) of those
// from `first` on.
void add_bias(const DistanceBias& bias, int64_t head, int64_t own, int64_t first, int64_t begin,
              int64_t end, float* scores) {
  const int64_t farthest = smaller(own, bias.farthest) - first;  // distance of the key at `first`
  if (bias.slopes != nullptr) {
    const float slope = kLog2E * bias.slopes[head], start = static_cast<float>(farthest - begin);
    const int count = static_cast<int>(end - begin);
    for (int i = 0; i < count; ++i) scores[begin + i] -= slope * (start - static_cast<float>(i));
  }
  if (bias.table != nullptr) {
    const float* columns = bias.table + head * bias.columns;
    for (int64_t c = begin; c < end; ++c)
      scores[c] += kLog2E * columns[smaller(farthest - c, bias.columns - 1)];
  }
}

}  // namespace
}  // namespace gptoss

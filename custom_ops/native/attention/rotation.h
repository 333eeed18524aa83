// Rotary position embedding of one head.
#pragma once

#include <cstdint>

namespace gptoss {

// Legend: D head dim, R rotary width.

struct Rotation {
  int64_t head_dim;  // D
  int64_t pairs;     // R/2; the dimensions after R pass as they are
  bool interleaved;  // dimension 2i pairs with 2i + 1, else i with i + R/2
};

// Hands the rotated numbers of x (D) to store(dimension, number); cos and sin (R/2) are the
// token's.
template <class Store>
void rotate(const Rotation& rotation, const float* x, const float* cos, const float* sin,
            const Store& store) {
  const int64_t pairs = rotation.pairs;
  if (rotation.interleaved) {
    for (int64_t i = 0; i < pairs; ++i) {
      store(2 * i, x[2 * i] * cos[i] - x[2 * i + 1] * sin[i]);
      store(2 * i + 1, x[2 * i + 1] * cos[i] + x[2 * i] * sin[i]);
    }
  } else {
    for (int64_t i = 0; i < pairs; ++i) {
      store(i, x[i] * cos[i] - x[i + pairs] * sin[i]);
      store(i + pairs, x[i + pairs] * cos[i] + x[i] * sin[i]);
    }
  }
  for (int64_t i = 2 * pairs; i < rotation.head_dim; ++i) store(i, x[i]);
}

}  // namespace gptoss

// bfloat16 products: a 32-bit lane holds two numbers, and one instruction multiplies and adds both
// pairs.
#pragma once

#include "attention/attention_avx512.h"

namespace gptoss {
namespace {

struct Bf16Pairs {
  using V = Avx512;
  using F = V::F;
  static constexpr int64_t kDims = 2;
  static constexpr int kRows = V::kRows;

  // (rows, W) of fp32 to (rows, W / 2) of pairs.
  static const float* pack_queries(const float* queries, int64_t size, float* packed) {
    for (int64_t i = 0; i < size; i += V::kLanes) store_weights(packed, i, V::load(queries + i));
    return packed;
  }

  static void pack_keys(const BFloat16* rows, int64_t count, int64_t head_dim, float* keys) {
    transpose_pairs<V>(rows, count, head_dim, [=](int64_t pair, int64_t key, F lanes) {
      V::store(keys + pair * kKeys + key, lanes);
    });
  }

  // Word (i, d) holds values 2i and 2i + 1; zeros follow until as many words are full as there are
  // weights.
  static const float* pack_values(const BFloat16* rows, int64_t count, int64_t head_dim,
                                  float* values) {
    const int64_t width = padded_width(head_dim);
    for (int64_t row = 0; row < round_up(count, 2 * V::kLanes); row += 2) {
      for (int64_t d = 0; d < width; d += V::kLanes) {
        const BFloat16* pair = rows + row * head_dim + d;
        const int64_t left = head_dim - d;
        const __m512i low = _mm512_cvtepu16_epi32(V::load_half(pair, row < count ? left : 0));
        const F high = row + 1 < count ? V::widen(pair + head_dim, left) : V::zero();
        V::store(values + row / 2 * width + d, _mm512_or_ps(_mm512_castsi512_ps(low), high));
      }
    }
    return values;
  }

  template <int R, class... Arguments>
  static void score(Arguments... arguments) {
    score_tile<V, Bf16Pairs, R>(arguments...);
  }
  template <int R, class... Arguments>
  static void add_values(Arguments... arguments) {
    value_tile<V, Bf16Pairs, R>(arguments...);
  }

  static F add_product(F sum, F a, F b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }

  // In place: 16 weights go where 8 scores were.
  static void store_weights(float* weights, int64_t column, F weight) {
    const auto rounded = reinterpret_cast<__m256>(_mm512_cvtneps_pbh(weight));
    _mm256_storeu_ps(weights + column / 2, rounded);
  }
};

}  // namespace
}  // namespace gptoss

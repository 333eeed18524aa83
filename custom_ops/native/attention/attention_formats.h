// How cached numbers become lanes: the formats of attention_tiles.h, which is included first, and
// in whose anonymous namespace these are, too.
#pragma once

#include "attention/attention_tiles.h"

namespace gptoss {
namespace {

// Transposes cached rows of `words` lanes each, with zeros after the last: `load(row, word)`
// returns the lanes of a row from `word` on, zero after its end; `store(word, key, lanes)` takes
// one word of the keys from `key` on.
template <class V, class Load, class Store>
void transpose_keys(int64_t count, int64_t words, const Load& load, const Store& store) {
  for (int64_t key = 0; key < round_up(count, 2 * V::kLanes); key += V::kLanes) {
    for (int64_t word = 0; word < words; word += V::kLanes) {
      typename V::F tile[V::kLanes];
      for (int i = 0; i < V::kLanes; ++i)
        tile[i] = key + i < count ? load(key + i, word) : V::zero();
      V::transpose(tile);
      for (int64_t i = 0; i < smaller(V::kLanes, words - word); ++i) store(word + i, key, tile[i]);
    }
  }
}

// The same for rows of bfloat16 pairs, which move as 32 bits and are no numbers.
template <class V, class Store>
void transpose_pairs(const BFloat16* rows, int64_t count, int64_t head_dim, const Store& store) {
  const auto* words = reinterpret_cast<const float*>(rows);
  const int64_t pairs = head_dim / 2;
  const auto load = [=](int64_t row, int64_t pair) {
    return V::widen(words + row * pairs + pair, pairs - pair);
  };
  transpose_keys<V>(count, pairs, load, store);
}

// fp32 arithmetic on any cache.
template <class V, class T>
struct Widened {
  using F = typename V::F;
  static constexpr int64_t kDims = 1;
  static constexpr int kRows = V::kRows;

  static const float* pack_queries(const float* queries, int64_t, float*) { return queries; }

  static void pack_keys(const T* rows, int64_t count, int64_t head_dim, float* keys) {
    const auto load = [=](int64_t row, int64_t dim) {
      return V::widen(rows + row * head_dim + dim, head_dim - dim);
    };
    const auto store = [=](int64_t dim, int64_t key, F lanes) {
      V::store(keys + dim * kKeys + key, lanes);
    };
    transpose_keys<V>(count, head_dim, load, store);
  }

  static const float* pack_values(const T* rows, int64_t count, int64_t head_dim, float* values) {
    const int64_t width = padded_width(head_dim);
    if constexpr (sizeof(T) == sizeof(float)) {
      if (width == head_dim) return rows;  // as they lie
    }
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t d = 0; d < width; d += V::kLanes) {
        V::store(values + row * width + d, V::widen(rows + row * head_dim + d, head_dim - d));
      }
    }
    return values;
  }

  template <int R, class... Arguments>
  static void score(Arguments... arguments) {
    score_tile<V, Widened, R>(arguments...);
  }
  template <int R, class... Arguments>
  static void add_values(Arguments... arguments) {
    value_tile<V, Widened, R>(arguments...);
  }

  static F add_product(F sum, F a, F b) { return V::add_product(sum, a, b); }
  static void store_weights(float* weights, int64_t column, F weight) {
    V::store(weights + column, weight);
  }
};

// Two bfloat16 in a lane are transposed as one, and widened by shifting: half the shuffles.
template <class V>
struct WidenedPairs : Widened<V, BFloat16> {
  static void pack_keys(const BFloat16* rows, int64_t count, int64_t head_dim, float* keys) {
    transpose_pairs<V>(rows, count, head_dim, [=](int64_t pair, int64_t key, typename V::F lanes) {
      V::store(keys + 2 * pair * kKeys + key, V::low_halves(lanes));
      V::store(keys + (2 * pair + 1) * kKeys + key, V::high_halves(lanes));
    });
  }
};

}  // namespace
}  // namespace gptoss

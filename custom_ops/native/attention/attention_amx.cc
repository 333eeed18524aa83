// bfloat16 products in AMX tiles of 16 query rows, for prefill; fewer rows go the way of
// attention_avx512_bf16.h, whose packing this file shares: its words of two numbers are what a
// tile's right operand wants.
#include "machine/amx_tiles.h"
#include "attention/attention_avx512_bf16.h"

namespace gptoss {
namespace {

constexpr int64_t kTile = 16;  // rows of a tile, and words of one
constexpr int64_t kWordBytes = 4;

// Tiles 0 to 3 (16, 64) += left (16, words) · right (words, 64), both of pairs; strides in words.
void multiply(const float* left, int64_t left_stride, const float* right, int64_t right_stride,
              int64_t words, int64_t columns) {
  for (int64_t word = 0; word < words; word += kTile) {
    const float* rows = right + word * right_stride;
    _tile_loadd(4, left + word, left_stride * kWordBytes);
    _tile_loadd(5, rows, right_stride * kWordBytes);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, rows + kTile, right_stride * kWordBytes);
    _tile_dpbf16ps(1, 4, 6);
    if (columns <= 2 * kTile) continue;
    _tile_loadd(5, rows + 2 * kTile, right_stride * kWordBytes);
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(6, rows + 3 * kTile, right_stride * kWordBytes);
    _tile_dpbf16ps(3, 4, 6);
  }
}

void store_tiles(float* out, int64_t stride, int64_t columns) {
  _tile_stored(0, out, stride * kWordBytes);
  _tile_stored(1, out + kTile, stride * kWordBytes);
  if (columns > 2 * kTile) {
    _tile_stored(2, out + 2 * kTile, stride * kWordBytes);
    _tile_stored(3, out + 3 * kTile, stride * kWordBytes);
  }
  settle_memory();
}

void score_with_tiles(const float* queries, int64_t stride, const float* keys, int64_t words,
                      int64_t count, float* scores) {
  settle_memory();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  multiply(queries, stride, keys, kKeys, words, count);
  store_tiles(scores, kKeys, count);
}

void add_values_with_tiles(const float* weights, const float* values, int64_t words,
                           const float* rescale, int64_t width, float* sums) {
  for (int64_t r = 0; r < kTile; ++r) {
    if (rescale[r] == 1.0f) continue;  // the peak stayed
    for (int64_t d = 0; d < width; d += Avx512::kLanes) {
      float* sum = sums + r * width + d;
      Avx512::store(sum, Avx512::multiply(Avx512::set(rescale[r]), Avx512::load(sum)));
    }
  }
  settle_memory();
  for (int64_t column = 0; column < width; column += 4 * kTile) {
    const int64_t columns = smaller(width - column, 4 * kTile);
    float* sum = sums + column;
    _tile_loadd(0, sum, width * kWordBytes);
    _tile_loadd(1, sum + kTile, width * kWordBytes);
    if (columns > 2 * kTile) {
      _tile_loadd(2, sum + 2 * kTile, width * kWordBytes);
      _tile_loadd(3, sum + 3 * kTile, width * kWordBytes);
    }
    multiply(weights, kKeys, values + column, width, words, columns);
    store_tiles(sum, width, columns);
  }
}

struct AmxPairs : Bf16Pairs {
  static constexpr int kRows = kTile;

  static void pack_keys(const BFloat16* rows, int64_t count, int64_t head_dim, float* keys) {
    Bf16Pairs::pack_keys(rows, count, head_dim, keys);
    // A tile takes 16 words at a time. What follows the last must be zero: the queries are zero
    // there, but zero times NaN is NaN.
    const int64_t words = head_dim / kDims;
    for (int64_t i = words * kKeys; i < round_up(words, kTile) * kKeys; ++i) keys[i] = 0.0f;
  }

  template <int R, class T>
  static void score(const float* queries, int64_t stride, const float* keys, int64_t words,
                    int64_t count, float* scores, const T* ahead) {
    if constexpr (R == kTile) {
      score_with_tiles(queries, stride, keys, words, count, scores);
    } else {
      Bf16Pairs::score<R>(queries, stride, keys, words, count, scores, ahead);
    }
  }

  template <int R, class T>
  static void add_values(const float* weights, const float* values, int64_t words,
                         const float* rescale, int64_t width, float* sums, const T* ahead) {
    if constexpr (R == kTile) {
      add_values_with_tiles(weights, values, words, rescale, width, sums);
    } else {
      Bf16Pairs::add_values<R>(weights, values, words, rescale, width, sums, ahead);
    }
  }
};

}  // namespace

void attend_amx(const AttentionTask<BFloat16>& task) noexcept {
  const TileConfig config;
  settle_memory();
  _tile_loadconfig(&config);
  attend_tiles<Avx512, AmxPairs>(task);
  _tile_release();
}

}  // namespace gptoss

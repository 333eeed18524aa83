// The vector form of attend_scalar: blocks of keys packed once for all rows, then register tiles of
// rows × keys.
//
// Included by the files of single CPU levels, so everything is in an anonymous namespace and
// nothing of std:: is called (CMakeLists.txt says why). Two template parameters carry what differs:
//
//   V       a vector of 32-bit lanes: F, kLanes, kRows (rows of a register tile), load, store,
//           zero, set, broadcast, max, highest, add_up, exp2, transpose.
//   Format  how cached numbers become lanes, and how they are multiplied: kDims (numbers in one
//           lane: 1 fp32, or 2 bfloat16), kRows (rows of its largest tile), pack_queries,
//           pack_keys, pack_values, store_weights, score and add_values. The last two are
//           score_tile and value_tile with its add_product, or something faster.
#pragma once

#include <math.h>

#include <cstdint>

#include "attention/attention.h"
#include "attention/attention_bias.h"

namespace gptoss {
namespace {

constexpr int64_t kKeys = kBlockKeys;

// 2^x on [−½, ½] to 8e-8 of its value: the polynomial of degree 5 with the least relative error.
constexpr float kExp2[] = {1.00000007f,   0.693146967f,   0.240221197f,
                           0.0555071327f, 0.00967554133f, 0.00132764720f};
// Weights under 2^-64 of the largest count as none: far below float's precision, and products with
// them would be denormal numbers, which processors take hundreds of cycles over.
constexpr float kLeastExponent = -64.0f;

constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Loops over R are unrolled, so that a tile stays in registers.

// What a tile's inner step asks memory for, so that the next block arrives, evenly, while this one
// is computed: the hardware looks too short a way ahead. A prefetch beyond the end of the cache
// does nothing.
template <int64_t kCount, class T>
const T* prefetch(const T* numbers) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  constexpr int kIntoSecondLevel = 2;
  for (int64_t i = 0; i < kCount; i += kLine) __builtin_prefetch(numbers + i, 0, kIntoSecondLevel);
  return numbers + kCount;
}

// scores (R, kKeys) = queries (R, words) · keys (words, kKeys), of the first `count` keys, rounded
// up.
template <class V, class Format, int R, class T>
[[gnu::noinline]] void score_tile(const float* queries, int64_t stride, const float* keys,
                                  int64_t words, int64_t count, float* scores, const T* ahead) {
  using F = typename V::F;
  for (int64_t column = 0; column < count; column += 2 * V::kLanes) {
    F sums[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = V::zero();
    for (int64_t word = 0; word < words; ++word) {
      ahead = prefetch<2 * V::kLanes * Format::kDims>(ahead);
      const F first = V::load(keys + word * kKeys + column);
      const F second = V::load(keys + word * kKeys + column + V::kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const F query = V::broadcast(queries + r * stride + word);
        sums[r][0] = Format::add_product(sums[r][0], query, first);
        sums[r][1] = Format::add_product(sums[r][1], query, second);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      V::store(scores + r * kKeys + column, sums[r][0]);
      V::store(scores + r * kKeys + column + V::kLanes, sums[r][1]);
    }
  }
}

// sums (R, width) = sums · rescale (R) + weights (R, words) · values (words, width).
template <class V, class Format, int R, class T>
[[gnu::noinline]] void value_tile(const float* weights, const float* values, int64_t words,
                                  const float* rescale, int64_t width, float* sums,
                                  const T* ahead) {
  using F = typename V::F;
  for (int64_t column = 0; column < width; column += 2 * V::kLanes) {
    F tile[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F factor = V::broadcast(rescale + r);
      tile[r][0] = V::multiply(factor, V::load(sums + r * width + column));
      tile[r][1] = V::multiply(factor, V::load(sums + r * width + column + V::kLanes));
    }
    for (int64_t word = 0; word < words; ++word) {
      ahead = prefetch<2 * V::kLanes * Format::kDims>(ahead);
      const F first = V::load(values + word * width + column);
      const F second = V::load(values + word * width + column + V::kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const F weight = V::broadcast(weights + r * kKeys + word);
        tile[r][0] = Format::add_product(tile[r][0], weight, first);
        tile[r][1] = Format::add_product(tile[r][1], weight, second);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      V::store(sums + r * width + column, tile[r][0]);
      V::store(sums + r * width + column + V::kLanes, tile[r][1]);
    }
  }
}

// Turns the scores of one row, of which it sees [begin, end), into weights. Returns the factor for
// what the row has summed so far.
template <class V, class Format>
float soften(float* scores, int64_t begin, int64_t end, int64_t count, float& peak, float& total) {
  using F = typename V::F;
  const int64_t columns = round_up(count, 2 * V::kLanes);
  if (begin >= end) {
    for (int64_t c = 0; c < columns; ++c) scores[c] = 0.0f;
    return 1.0f;
  }
  for (int64_t c = 0; c < begin; ++c) scores[c] = -INFINITY;
  for (int64_t c = end; c < columns; ++c) scores[c] = -INFINITY;

  F highest = V::set(peak);
  for (int64_t c = 0; c < columns; c += V::kLanes) highest = V::max(V::load(scores + c), highest);
  const float higher = V::highest(highest);
  const F shift = V::set(higher);
  F sum = V::zero();
  for (int64_t c = 0; c < columns; c += V::kLanes) {
    const F weight = V::exp2(V::subtract(V::load(scores + c), shift));
    sum = V::add(sum, weight);
    Format::store_weights(scores, c, weight);
  }
  const float rescale = V::first(V::exp2(V::set(peak - higher)));
  total = total * rescale + V::add_up(sum);
  peak = higher;
  return rescale;
}

// Consecutive keys and values, packed for all rows.
template <class T>
struct PackedBlock {
  int64_t position;  // of the first
  int64_t count;
  const float* keys;    // (D / kDims, kKeys)
  const float* values;  // (count / kDims, W)
  const T* next_keys;   // where the next block lies
  const T* next_values;
};

// One block for R rows: scores, weights, sums.
template <class V, class Format, bool kBiased, int R, class T>
void attend_tile(const AttentionTask<T>& task, const PackedBlock<T>& block, int64_t row,
                 const float* queries, float* scores) {
  const int64_t width = padded_width(task.head_dim);
  int64_t begin[R], end[R];
  bool any = false;
  for (int r = 0; r < R; ++r) {
    const int64_t own = task.first + (row + r) / task.group;
    begin[r] = task.window > 0 ? larger(0, own - task.window + 1 - block.position) : 0;
    end[r] = smaller(block.count, own + 1 - block.position);
    any = any || begin[r] < end[r];
  }
  if (!any) return;
  const int64_t stride = width / Format::kDims, words = task.head_dim / Format::kDims;
  Format::template score<R>(queries + row * stride, stride, block.keys, words, block.count, scores,
                            block.next_keys);
  float rescale[R];
  for (int r = 0; r < R; ++r) {
    if constexpr (kBiased) {
      const int64_t own = task.first + (row + r) / task.group;
      add_bias(task.bias, (row + r) % task.group, own, block.position, begin[r], end[r],
               scores + r * kKeys);
    }
    rescale[r] = soften<V, Format>(scores + r * kKeys, begin[r], end[r], block.count,
                                   task.peaks[row + r], task.totals[row + r]);
  }
  const int64_t pairs = (block.count + Format::kDims - 1) / Format::kDims;
  Format::template add_values<R>(scores, block.values, pairs, rescale, width,
                                 task.sums + row * width, block.next_values);
}

template <class V, class Format, bool kBiased, class T>
void attend_blocks(const AttentionTask<T>& task) {
  const int64_t width = padded_width(task.head_dim);
  float* keys = task.scratch;                      // (D / kDims, kKeys)
  float* values = keys + kKeys * width;            // (kKeys / kDims, W)
  float* scores = values + kKeys * width;          // (kMaxTileRows, kKeys)
  float* queries = scores + kMaxTileRows * kKeys;  // (rows, W / kDims)
  for (int64_t i = 0; i < task.rows * width; ++i) task.sums[i] = 0.0f;
  for (int64_t row = 0; row < task.rows; ++row) task.totals[row] = 0.0f;
  const float* rows = Format::pack_queries(task.queries, task.rows * width, queries);

  int64_t count = 0;
  for (int64_t position = task.begin; position < task.end; position += count) {
    // A block ends where the ring wraps, so that its rows lie together.
    const int64_t slot = position % task.capacity;
    count = smaller(smaller(kKeys, task.end - position), task.capacity - slot);
    const T* cached_keys = task.keys + slot * task.head_dim;
    const T* cached_values = task.values + slot * task.head_dim;
    Format::pack_keys(cached_keys, count, task.head_dim, keys);
    const PackedBlock<T> block{position,
                               count,
                               keys,
                               Format::pack_values(cached_values, count, task.head_dim, values),
                               cached_keys + count * task.head_dim,
                               cached_values + count * task.head_dim};
    int64_t row = 0;
    for (; row + Format::kRows <= task.rows; row += Format::kRows) {
      attend_tile<V, Format, kBiased, Format::kRows>(task, block, row, rows, scores);
    }
    for (; row + V::kRows <= task.rows; row += V::kRows) {
      attend_tile<V, Format, kBiased, V::kRows>(task, block, row, rows, scores);
    }
    for (; row < task.rows; ++row)
      attend_tile<V, Format, kBiased, 1>(task, block, row, rows, scores);
  }
}

// Layers without a bias pay nothing for those that have one.
template <class V, class Format, class T>
void attend_tiles(const AttentionTask<T>& task) {
  if (task.bias.slopes != nullptr || task.bias.table != nullptr) {
    attend_blocks<V, Format, true>(task);
  } else {
    attend_blocks<V, Format, false>(task);
  }
}

}  // namespace
}  // namespace gptoss

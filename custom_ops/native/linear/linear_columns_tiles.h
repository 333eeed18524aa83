// Weights by columns, written once for the vector widths.
//
// `V` is one of machine/vectors_LEVEL.h, with kTokens and kVectors: how many tokens pass how many
// vectors of columns together. Included by files that are compiled for one level, each with a V of
// its own in an anonymous namespace: so every copy of this code stays in its file.
#pragma once

#include "linear/linear_columns.h"
#include "linear/linear_weights.h"

namespace gptoss {

template <class V, WeightType type>
struct ColumnTiles {
  using Vector = typename V::Vector;

  static constexpr size_t kStreams = 8;  // rows that are read side by side
  static constexpr size_t kAhead = 512;  // bytes of each to prefetch
  static constexpr size_t kSums = 6144;  // floats: 24 KB

  static void multiply(const WeightColumns& columns, const TokenRows& tokens, float* out,
                       size_t stride) {
    size_t t = 0;
    if (tokens.count > kFewColumnTokens) {
      for (; t + V::kTokens <= tokens.count; t += V::kTokens) {
        multiply_columns<V::kTokens>(columns, tokens.x + t * tokens.stride, tokens.stride,
                                     out + t * stride, stride);
      }
    }
    const float* x = tokens.x + t * tokens.stride;
    out += t * stride;
    static_assert(V::kTokens <= kFewColumnTokens + 1, "what is left of the tokens is few");
    switch (tokens.count - t) {
      case 0:
        return;
      case 1:
        return sum_rows<1>(columns, x, tokens.stride, out, stride);
      case 2:
        return sum_rows<2>(columns, x, tokens.stride, out, stride);
      case 3:
        return sum_rows<3>(columns, x, tokens.stride, out, stride);
      case 4:
        return sum_rows<4>(columns, x, tokens.stride, out, stride);
      case 5:
        return sum_rows<5>(columns, x, tokens.stride, out, stride);
      case 6:
        return sum_rows<6>(columns, x, tokens.stride, out, stride);
      case 7:
        return sum_rows<7>(columns, x, tokens.stride, out, stride);
      default:
        return sum_rows<8>(columns, x, tokens.stride, out, stride);
    }
  }

  // A few tokens: weights are read once, row after row, for some columns at a time, whose sums the
  // first-level cache holds. Each row is a stream of its own from memory: a single one would wait
  // at the start of every page, where the processor's own prefetcher stops.
  template <size_t tokens>
  static void sum_rows(const WeightColumns& columns, const float* x, size_t x_stride, float* out,
                       size_t stride) {
    constexpr size_t kMost = kSums / tokens / V::kLanes * V::kLanes - V::kLanes;
    const size_t blocks = (columns.count + kMost - 1) / kMost;
    const size_t share = blocks == 0 ? 0 : (columns.count + blocks - 1) / blocks;
    const size_t width = (share + V::kLanes - 1) / V::kLanes * V::kLanes;
    const size_t step = columns.width / kStreams;
    for (size_t c = 0; c < columns.count; c += width) {
      const size_t count = columns.count - c < width ? columns.count - c : width;
      const WeightColumns block{columns.first + c * bytes_of(type), columns.row_bytes, count,
                                columns.width};
      alignas(kLine) float sums[kSums];
      const Sums all{
          sums, width + V::kLanes};  // an odd distance: else tokens may share a set of the cache
      for (size_t i = 0; i < tokens * all.stride; ++i) sums[i] = 0;
      for (size_t k = 0; k < step; ++k)
        add_rows<tokens, kStreams>(block, k, step, x, x_stride, all);
      for (size_t k = kStreams * step; k < block.width; ++k)
        add_rows<tokens, 1>(block, k, 1, x, x_stride, all);
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t i = 0; i < count; ++i) out[t * stride + c + i] = sums[t * all.stride + i];
      }
    }
  }

  struct Sums {
    float* first;
    size_t stride;  // from one token to the next
  };

  // Adds the products of `streams` rows, from k on and `step` rows apart.
  template <size_t tokens, size_t streams>
  static void add_rows(const WeightColumns& columns, size_t k, size_t step, const float* x,
                       size_t x_stride, const Sums& sums) {
    const std::byte* rows[streams];
    Vector values[tokens][streams];
#pragma GCC unroll 8  // these loops are unrolled to keep what they can in registers
    for (size_t s = 0; s < streams; ++s) {
      rows[s] = columns.first + (k + s * step) * columns.row_bytes;
      for (size_t t = 0; t < tokens; ++t)
        values[t][s] = V::broadcast(x[t * x_stride + k + s * step]);
    }
    for (size_t c = 0; c < columns.count; c += V::kLanes) {
      const size_t lanes = columns.count - c < V::kLanes ? columns.count - c : V::kLanes;
      if (c * bytes_of(type) % kLine == 0) {
#pragma GCC unroll 8
        for (size_t s = 0; s < streams; ++s)
          __builtin_prefetch(rows[s] + c * bytes_of(type) + kAhead);
      }
      Vector weights[streams];
#pragma GCC unroll 8
      for (size_t s = 0; s < streams; ++s) weights[s] = load(rows[s] + c * bytes_of(type), lanes);
#pragma GCC unroll 8
      for (size_t t = 0; t < tokens; ++t) {
        float* place = sums.first + t * sums.stride + c;
        Vector sum = V::load(place);
#pragma GCC unroll 8
        for (size_t s = 0; s < streams; ++s) sum = V::add_product(sum, values[t][s], weights[s]);
        V::store(place, sum);
      }
    }
  }

  // Several tokens share pieces of every row.
  template <size_t tokens>
  static void multiply_columns(const WeightColumns& columns, const float* x, size_t x_stride,
                               float* out, size_t stride) {
    size_t c = 0;
    for (; c + V::kVectors * V::kLanes <= columns.count; c += V::kVectors * V::kLanes) {
      multiply_tile<tokens, V::kVectors>(columns, c, V::kLanes, x, x_stride, out, stride);
    }
    for (; c + V::kLanes <= columns.count; c += V::kLanes) {
      multiply_tile<tokens, 1>(columns, c, V::kLanes, x, x_stride, out, stride);
    }
    if (c < columns.count)
      multiply_tile<tokens, 1>(columns, c, columns.count - c, x, x_stride, out, stride);
  }

  // The first `lanes` lanes of each vector are columns.
  template <size_t tokens, size_t vectors>
  static void multiply_tile(const WeightColumns& columns, size_t c, size_t lanes, const float* x,
                            size_t x_stride, float* out, size_t stride) {
    Vector sums[tokens][vectors];
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t v = 0; v < vectors; ++v) sums[t][v] = V::zero();
    }
    const std::byte* row = columns.first + c * bytes_of(type);
    for (size_t k = 0; k < columns.width; ++k, row += columns.row_bytes) {
      Vector weights[vectors];
      for (size_t v = 0; v < vectors; ++v)
        weights[v] = load(row + v * V::kLanes * bytes_of(type), lanes);
      for (size_t t = 0; t < tokens; ++t) {
        const Vector value = V::broadcast(x[t * x_stride + k]);
        for (size_t v = 0; v < vectors; ++v)
          sums[t][v] = V::add_product(sums[t][v], value, weights[v]);
      }
    }
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t v = 0; v < vectors; ++v)
        store(out + t * stride + c + v * V::kLanes, sums[t][v], lanes);
    }
  }

  static Vector load(const std::byte* address, size_t lanes) {
    return lanes == V::kLanes ? widen<V, type>(address) : widen_some<V, type>(address, lanes);
  }

  static void store(float* p, Vector x, size_t lanes) {
    if (lanes == V::kLanes) return V::store(p, x);
    V::store_some(p, x, lanes);
  }
};

// The kernel of each type of weight.
template <class V>
MultiplyColumns columns_of(WeightType type) {
  switch (type) {
    case WeightType::float32:
      return ColumnTiles<V, WeightType::float32>::multiply;
    case WeightType::float16:
      return ColumnTiles<V, WeightType::float16>::multiply;
    case WeightType::bfloat16:
      return ColumnTiles<V, WeightType::bfloat16>::multiply;
  }
  return nullptr;
}

}  // namespace gptoss

// Dense experts in tiles of columns, written once for the vector widths.
//
// `V` is a vector type of kLanes floats with load(address, T), which widens, zero, broadcast, add_product and
// store_some. Included by files that are compiled for one level, each with a V of its
// own in an anonymous namespace: so every copy of this code stays in its file.
#pragma once

#include "moe/moe_dense.h"

namespace gptoss {

template <class V, class T>
struct DenseTiles {
  using Vector = typename V::Vector;

  // One token reads wide pieces of every row, for the memory's sake; several share narrower ones.
  static void multiply(const DenseColumns& columns, const float* x, size_t tokens, float* out, size_t stride) {
    size_t t = 0;
    for (; t + V::kTokens <= tokens; t += V::kTokens) {
      multiply_columns<V::kTokens, V::kVectors>(columns, x + t * columns.width, out + t * stride, stride);
    }
    for (; t < tokens; ++t) {
      multiply_columns<1, V::kWideVectors>(columns, x + t * columns.width, out + t * stride, stride);
    }
  }

  template <size_t tokens, size_t vectors>
  static void multiply_columns(const DenseColumns& columns, const float* x, float* out, size_t stride) {
    size_t c = 0;
    for (; c + vectors * V::kLanes <= columns.count; c += vectors * V::kLanes) {
      multiply_tile<tokens, vectors>(columns, c, V::kLanes, x, out, stride);
    }
    for (; c + V::kLanes <= columns.count; c += V::kLanes) {
      multiply_tile<tokens, 1>(columns, c, V::kLanes, x, out, stride);
    }
    if (c < columns.count) multiply_tile<tokens, 1>(columns, c, columns.count - c, x, out, stride);
  }

  // The first `lanes` lanes of each vector are columns.
  template <size_t tokens, size_t vectors>
  static void multiply_tile(const DenseColumns& columns, size_t c, size_t lanes, const float* x, float* out,
                            size_t stride) {
    Vector sums[tokens][vectors];
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t v = 0; v < vectors; ++v) sums[t][v] = V::zero();
    }
    const std::byte* row = columns.first + c * sizeof(T);
    for (size_t k = 0; k < columns.width; ++k, row += columns.row_bytes) {
      Vector weights[vectors];
      for (size_t v = 0; v < vectors; ++v) weights[v] = load(row + v * V::kLanes * sizeof(T), lanes);
      for (size_t t = 0; t < tokens; ++t) {
        const Vector value = V::broadcast(x[t * columns.width + k]);
        for (size_t v = 0; v < vectors; ++v) sums[t][v] = V::add_product(sums[t][v], value, weights[v]);
      }
    }
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t v = 0; v < vectors; ++v) V::store_some(out + t * stride + c + v * V::kLanes, sums[t][v], lanes);
    }
  }

  static Vector load(const std::byte* address, size_t lanes) {
    if (lanes == V::kLanes) return V::load(address, T{});
    T some[V::kLanes] = {};
    for (size_t i = 0; i < lanes * sizeof(T); ++i) reinterpret_cast<std::byte*>(some)[i] = address[i];
    return V::load(reinterpret_cast<const std::byte*>(some), T{});
  }
};

}  // namespace gptoss

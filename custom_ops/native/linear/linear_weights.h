// How weights become vectors of floats, for a V of machine/vectors_LEVEL.h.
//
// Included by files that are compiled for one level, whose V is in an anonymous namespace: so every
// copy of this code stays in its file.
#pragma once

#include "linear/linear_kernels.h"

namespace gptoss {

// V::kLanes weights from any address.
template <class V, WeightType type>
typename V::Vector widen(const void* address) {
  if constexpr (type == WeightType::float32) return V::load(address);
  if constexpr (type == WeightType::float16) return V::from_float16(address);
  if constexpr (type == WeightType::bfloat16) return V::from_bfloat16(address);
}

// The first `count` of them and then zeros: nothing behind them is read.
template <class V, WeightType type>
typename V::Vector widen_some(const void* address, size_t count) {
  unsigned char bytes[V::kLanes * bytes_of(type)] = {};
  __builtin_memcpy(bytes, address, count * bytes_of(type));
  return widen<V, type>(bytes);
}

// Float32 arithmetic on weights widened as they are read, which is exact.
template <class V>
struct FloatProducts {
  static typename V::Vector multiply_add(typename V::Vector weights, typename V::Vector tokens,
                                         typename V::Vector sum) {
    return V::add_product(sum, weights, tokens);
  }
};

// Weights of Linear.
template <class V, WeightType type>
struct Widened {
  static constexpr size_t kLaneBytes = bytes_of(type);

  static typename V::Vector load(const LinearCall& call, size_t row, size_t lane) {
    return widen<V, type>(call.weight + row * call.row_bytes + lane * kLaneBytes);
  }
  static typename V::Vector load_rest(const LinearCall& call, size_t row, size_t lane) {
    return widen_some<V, type>(call.weight + row * call.row_bytes + lane * kLaneBytes,
                               call.lanes - lane);
  }
};

// Weights of LinearInt8: an integer times its scale in float32, as the definition rounds it.
template <class V>
struct Scaled {
  static constexpr size_t kLaneBytes = 1;
  static_assert(kScaleBlock % V::kLanes == 0, "a vector's weights share a scale");

  static typename V::Vector load(const LinearCall& call, size_t row, size_t k) {
    const size_t block = row * (call.depth / kScaleBlock) + k / kScaleBlock;
    float scale;
    __builtin_memcpy(&scale, call.scales + block * sizeof scale,
                     sizeof scale);  // the address may be odd
    return V::product(V::from_int8(call.weight + row * call.row_bytes + k), V::broadcast(scale));
  }
  static typename V::Vector load_rest(const LinearCall& call, size_t row, size_t k) {
    return load(call, row, k);
  }  // never fewer
};

}  // namespace gptoss

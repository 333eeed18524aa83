// SinkAttention: rotates queries and keys, writes the new keys and values into the cache, attends
// over the cache. Its definition, and what the cache holds where, is custom_ops/sink_attention.py.
#pragma once

#include "machine/activations.h"
#include "attention/attention.h"
#include "abi/context.h"
#include "abi/ort_abi.h"

namespace gptoss {

// Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, D head dim, R rotary
// width, N distances.

struct SinkAttentionAttributes {
  int64_t num_heads;     // H
  int64_t kv_num_heads;  // K, divides H
  float scale;
  int64_t window;       // keys a query sees, itself included; 0 means all
  bool interleaved;     // dimension 2i pairs with 2i + 1, else i with i + R/2
  int64_t sink_tokens;  // first tokens that stay; less than window
  float sink_bias;      // of their scores

  // Throws Error for a missing attribute and for values that no layer can have.
  static SinkAttentionAttributes read(const OrtApi& api, const OrtKernelInfo& info);
};

// Angles of every token of a call; null where nothing is rotated.
struct Angles {
  const float* cos;  // (B, S, R/2)
  const float* sin;
};

// The inputs of one call, checked; optional ones may be null. T is the cache's element type.
template <class T>
struct SinkAttentionCall {
  const float* query;  // (B, S, H·D)
  const float* key;    // (B, S, K·D)
  const float* value;  // (B, S, K·D)
  const T* past_key;   // (B, K, C, D)
  const T* past_value;
  const int64_t* past_lengths;  // (B)
  const int64_t* new_lengths;   // (B)
  const float* sinks;           // (H)
  Angles angles;
  const float* alibi_slopes;   // (H)
  const float* distance_bias;  // (H, N)
  Angles sink_angles;          // of queries, for the keys of kept tokens
  int64_t batch;
  int64_t columns;  // S
  int64_t capacity;
  int64_t head_dim;
  int64_t pairs;      // R/2; 0 where nothing is rotated
  int64_t distances;  // N

  // Throws Error, naming the input, before a byte outside the tensors could be read or written.
  static SinkAttentionCall check(const Context& context, const SinkAttentionAttributes& attributes);
};

template <class T>
constexpr ONNXTensorElementDataType kCacheType = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
template <>
constexpr ONNXTensorElementDataType kCacheType<float> = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
template <>
constexpr ONNXTensorElementDataType kCacheType<Float16> = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
template <>
constexpr ONNXTensorElementDataType kCacheType<BFloat16> = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;

template <class T>
class SinkAttention {
 public:
  static constexpr const char* kName = "SinkAttention";
  static constexpr Port kInputs[] = {
      {"query", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"key", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"value", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"past_key", kCacheType<T>},
      {"past_value", kCacheType<T>},
      {"past_lengths", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
      {"new_lengths", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
      {"sinks", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"cos", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"sin", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"alibi_slopes", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"distance_bias", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"sink_cos", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"sink_sin", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
  };
  static constexpr Port kOutputs[] = {
      {"output", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {"present_key", kCacheType<T>},
      {"present_value", kCacheType<T>},
  };

  SinkAttention(const OrtApi& api, const OrtKernelInfo& info, Activations activations);
  void compute(const Context& context) const;

 private:
  SinkAttentionAttributes attributes_;
  AttentionKernel<T> kernel_;
};

}  // namespace gptoss

#include "kv_cache.h"

#include <algorithm>

#include "text.h"

namespace gptoss {

static int64_t checked_capacity(int64_t capacity, int64_t longest) {
  expect(capacity > 0 && capacity <= longest, "capacity", std::to_string(capacity),
         "1 to " + std::to_string(longest));
  return capacity;
}

static int64_t checked_chunk(int64_t chunk, int64_t capacity) {
  expect(chunk > 0, "chunk", std::to_string(chunk), "at least 1");
  return std::min(chunk, capacity);
}

KVCache::KVCache(const Session& session, int64_t capacity_, int64_t chunk_)
    : capacity(checked_capacity(capacity_, session.package.longest)),
      chunk(checked_chunk(chunk_, capacity)),
      graph_(session.graph_),
      binding_(session.graph_) {
  const bool is_ort = session.package.target == "ort";
  for (const CacheLayer& layer : session.package.layers) {
    // A ring of so many slots overwrites nothing that a query of the same run still sees, and has
    // one beside the tokens that it keeps. ONNX Runtime's own op makes room by itself.
    const int64_t ring = std::min(capacity, layer.window + chunk - 1);
    const int64_t window = is_ort ? layer.window : std::max(layer.sink_tokens + 1, ring);
    bind(layer, layer.window > 0 ? window : capacity, kv_type(session.package));
  }
  if (is_ort) {
    ones_.assign(capacity, 1);
  } else {
    binding_.BindInput("past_lengths", tensor(&past_, {1}));
    binding_.BindInput("new_lengths", tensor(&new_, {1}));
  }
}

void KVCache::bind_lengths(int64_t count) {
  past_ = length_;
  new_ = count;
  if (!ones_.empty()) {
    binding_.BindInput("attention_mask", tensor(ones_.data(), {1, past_ + new_}));
  }
}

void KVCache::bind(const CacheLayer& layer, int64_t slots, ONNXTensorElementDataType type) {
  const size_t element_bytes = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? 4 : 2;
  const Tokens shape = {1, layer.kv_heads, slots, layer.head_dim};
  const size_t elements = layer.kv_heads * slots * layer.head_dim;
  const std::pair<std::string, std::string> names[] = {{layer.past_key, layer.present_key},
                                                       {layer.past_value, layer.present_value}};
  for (const auto& [past, present] : names) {
    // Zeros, since an unseen slot is multiplied by 0, which a NaN survives. Untouched pages cost
    // nothing.
    buffers_.emplace_back(std::calloc(elements, element_bytes), std::free);
    void* memory = buffers_.back().get();
    expect(memory != nullptr, "KV cache", "no memory for it",
           "less capacity than " + std::to_string(capacity));
    const Ort::Value buffer = tensor(memory, shape, element_bytes, type);
    binding_.BindInput(past.c_str(), buffer);
    binding_.BindOutput(present.c_str(), buffer);
  }
}

KVCache::Use::Use(KVCache& cache, const OrtSession* graph) : cache_(cache) {
  expect(cache.graph_ == graph, "KV cache", "one of another session", "one of this session");
  expect(!cache.in_use_.exchange(true), "KV cache", "another call that is using it",
         "one call at a time; each sequence has a cache of its own");
}

Ort::Value tensor(void* data, const Tokens& shape, size_t element_bytes,
                  ONNXTensorElementDataType type) {
  static const auto cpu = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  for (const int64_t size : shape) element_bytes *= size;
  return Ort::Value::CreateTensor(cpu, data, element_bytes, shape.data(), shape.size(), type);
}

ONNXTensorElementDataType kv_type(const Package& package) {
  if (package.kv_dtype == "float32") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  const bool is_half = package.kv_dtype == "float16";
  return is_half ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
}

}  // namespace gptoss

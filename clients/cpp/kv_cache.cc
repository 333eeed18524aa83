#include <algorithm>

#include "gptoss.h"

namespace gptoss {
namespace {

ONNXTensorElementDataType element_type(const std::string& dtype) {
  if (dtype == "float32") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  if (dtype == "float16") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  if (dtype == "bfloat16") return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  throw Error("kv_dtype: found " + dtype + ", expected float32, float16 or bfloat16");
}

// A tensor over memory that stays its owner's.
Ort::Value tensor(void* data, std::vector<int64_t> shape, ONNXTensorElementDataType type, size_t element_bytes) {
  static const auto cpu = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  size_t bytes = element_bytes;
  for (const int64_t size : shape) bytes *= size;
  return Ort::Value::CreateTensor(cpu, data, bytes, shape.data(), shape.size(), type);
}

Ort::Value integers(int64_t* data, std::vector<int64_t> shape) {
  return tensor(data, std::move(shape), ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, sizeof(int64_t));
}

}  // namespace

KVCache::KVCache(const Session& session, int64_t capacity_, int64_t chunk_)
    : capacity(capacity_), chunk(chunk_), session_(session), binding_(session.graph_) {
  const int64_t longest = session.package.longest;
  expect(capacity > 0 && capacity <= longest, "capacity", std::to_string(capacity), "1 to " + std::to_string(longest));
  expect(chunk > 0, "chunk", std::to_string(chunk), "at least 1");
  const auto type = element_type(session.package.kv_dtype);
  const size_t element_bytes = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? 4 : 2;
  for (const CacheLayer& layer : session.package.cache) {
    // A ring of so many slots overwrites nothing that a query of the same run still sees.
    const int64_t slots = layer.window > 0 ? std::min(capacity, layer.window + chunk - 1) : capacity;
    const auto bind = [&](const std::string& past, const std::string& present) {
      // Zeros, since an unseen slot is multiplied by 0, which a NaN survives. Untouched pages cost nothing.
      void* memory = std::calloc(layer.kv_heads * slots * layer.head_dim, element_bytes);
      if (memory == nullptr) throw Error("KV cache: found no memory for " + std::to_string(capacity) + " tokens");
      buffers_.emplace_back(memory, std::free);
      const Ort::Value buffer = tensor(memory, {1, layer.kv_heads, slots, layer.head_dim}, type, element_bytes);
      binding_.BindInput(past.c_str(), buffer);
      binding_.BindOutput(present.c_str(), buffer);
    };
    bind(layer.past_key, layer.present_key);
    bind(layer.past_value, layer.present_value);
  }
  binding_.BindInput("past_lengths", integers(&past_, {1}));
  binding_.BindInput("new_lengths", integers(&new_, {1}));
}

const float* KVCache::run(const int64_t* tokens, size_t count, const int64_t* positions, size_t kept) {
  const bool bound = ids_.size() == count && positions_.size() == kept;
  ids_.assign(tokens, tokens + count);
  positions_.assign(positions, positions + kept);
  new_ = static_cast<int64_t>(count);
  if (!bound) {  // a decode step after the first finds all in place, and allocates nothing
    const int64_t vocab = session_.package.vocab, rows = static_cast<int64_t>(kept);
    logits_.resize(kept * vocab);
    binding_.BindInput("input_ids", integers(ids_.data(), {1, new_}));
    binding_.BindInput("logit_positions", integers(positions_.data(), {1, rows}));
    binding_.BindOutput("logits", tensor(logits_.data(), {1, rows, vocab}, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4));
  }
  session_.graph_.Run(Ort::RunOptions{nullptr}, binding_);
  past_ += new_;
  return logits_.data();
}

}  // namespace gptoss

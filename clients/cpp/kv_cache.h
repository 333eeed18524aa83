// How a session uses a cache; no part of the client's interface.
#pragma once

#include "session.h"

namespace gptoss {

// Holds a cache for one call. Throws at once where another call holds it: waiting would hide that
// two sequences are about to be mixed.
class KVCache::Use {
 public:
  Use(KVCache& cache, const OrtSession* graph);
  ~Use() { cache_.in_use_ = false; }
  Use(const Use&) = delete;

 private:
  KVCache& cache_;
};

// A tensor over memory that stays its owner's.
Ort::Value tensor(void* data, const Tokens& shape, size_t element_bytes = sizeof(int64_t),
                  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64);

ONNXTensorElementDataType kv_type(const Package& package);

}  // namespace gptoss

// Where the weights of an ONNX file lie, read from the file itself before ONNX Runtime sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gptoss {

// Bytes of a file.
struct ByteRange {
  int64_t offset = 0;
  int64_t length = 0;

  bool operator<(const ByteRange& other) const {
    return offset != other.offset ? offset < other.offset : length < other.length;
  }
};

// An initializer whose data lie in another file.
struct ExternalTensor {
  std::string name;
  std::string file;
  ByteRange range;
};

// The external tensors of an ONNX model, which are initializers of its main graph. Throws, in
// words that begin with `where`, for what is no ONNX model, and for external data anywhere else.
std::vector<ExternalTensor> external_tensors(std::string_view model, const std::string& where);

}  // namespace gptoss

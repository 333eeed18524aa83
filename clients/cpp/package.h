// A package folder: what its manifest says, and its files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "files.h"
#include "json.h"
#include "onnx_file.h"

namespace gptoss {

using Tokens = std::vector<int64_t>;

// The KV cache of one layer.
struct CacheLayer {
  int64_t window;       // 0: all positions are seen
  int64_t sink_tokens;  // that a window layer keeps in their slots, which is the graph's work
  int64_t kv_heads;
  int64_t head_dim;
  // Names of inputs and outputs of the graph.
  std::string past_key;
  std::string past_value;
  std::string present_key;
  std::string present_value;
};

// A safetensors file that the manifest lists.
struct WeightFile {
  std::string name;
  std::shared_ptr<const RegularFile> file;  // open, so that it is the one whose state is asked
  FileState state;                          // when the package was opened
  std::vector<ByteRange> tensors;           // in ascending order
};

// A package, opened. Every file it names lies in its folder, except the weights of mode
// `reference`; the weight files are those it was made with.
class Package {
 public:
  explicit Package(const std::filesystem::path& folder);

  // Throws unless tokens are of the vocabulary; `thing` names them.
  void check_tokens(const Tokens& tokens, const std::string& thing) const;
  // Throws unless a cache with this much room can take a prompt.
  void check_prompt(const Tokens& tokens, int64_t room) const;
  // Throws if a weight file has changed since the package was opened: its mapped bytes would be
  // another model, and a file cut off would end the process. A file that another has replaced
  // under its name is still there for the session, and has not changed.
  void check_unchanged() const;
  // Throws if other files lie there now; a session asks once it has mapped them.
  void check_mapped() const;
  // Whether it can do what other packages can, such as `activations bf16`.
  bool runs(const std::string& feature) const;
  // Throws where an ONNX Runtime of version `found`, such as 1.32.0, is too old for the graph.
  void check_runtime(const std::string& found) const;
  // The bytes of the ONNX file. Throws unless each of its external tensors is one tensor of a
  // weight file, or a part of one.
  std::string read_graph() const;

  const std::filesystem::path folder;
  std::string target;  // portable: ops with a body; ort: ONNX Runtime's own; openvino: standard
  std::string onnxruntime;  // the least version that runs the graph, such as 1.28
  std::filesystem::path graph;
  std::filesystem::path weights_root;  // the folder of the weight files
  std::vector<WeightFile> weights;
  std::string kv_dtype;  // float32, float16 or bfloat16
  std::vector<CacheLayer> layers;
  std::vector<std::string> ops;          // that the graph needs kernels for
  std::vector<std::string> unsupported;  // what the graph cannot do, such as `activations bf16`
  int64_t vocab = 0;
  int64_t longest = 0;  // the most tokens of a sequence
  Tokens eos_tokens;    // each ends a text
  std::vector<std::string> tokenizer_files;

 private:
  void read_needs(const JsonPlace& manifest);
  void read_model(const JsonPlace& manifest);
  void read_cache(const JsonPlace& manifest);
  void read_weights(const JsonPlace& manifest);
  void read_eos_tokens(const JsonPlace& manifest);
};

}  // namespace gptoss

#include "package.h"

#include <algorithm>
#include <set>

#include "manifest_format_1.h"
#include "safetensors.h"
#include "text.h"
#include "version.h"

namespace gptoss {

namespace fs = std::filesystem;

// More than any model has; they keep a product of sizes within 64 bits.
static constexpr int64_t kVocabLimit = 1 << 24;
static constexpr int64_t kLongestLimit = int64_t{1} << 31;
static constexpr int64_t kHeadsLimit = 1 << 12;
static constexpr int64_t kLayersLimit = 1 << 12;
static constexpr size_t kTokenizerFilesLimit = 32;
// Bytes of the ONNX file, whose weights lie outside: the largest gpt-oss takes half a million.
static constexpr size_t kGraphLimit = 8'000'000;

// The manifest in format 2.
static Json read_manifest(const fs::path& file) {
  Json document = read_json(file);
  const JsonPlace manifest(document, file);
  manifest.at("format").one_of({"gptoss-onnx"});
  const bool is_old = manifest.at("format_version").integer(1, 2) == 1;
  return is_old ? upgraded(manifest) : document;
}

Package::Package(const fs::path& path) : folder(path) {
  expect(fs::is_directory(folder), folder, "no such folder", "a package folder");
  const fs::path file = folder / "manifest.json";
  expect(is_there(file), folder, "no manifest.json in it", "a package folder");
  file_in(folder, "manifest.json");
  const Json document = read_manifest(file);
  const JsonPlace manifest(document, file);
  target = manifest.at("target").one_of({"portable", "ort", "openvino"});
  read_needs(manifest);
  read_model(manifest);
  read_cache(manifest);
  read_weights(manifest);
  read_eos_tokens(manifest);
}

static std::string plain_name(const JsonPlace& place) {
  expect_plain_name(place.text(), place.where);
  return place.text();
}

// ONNX Runtime takes a file of another ending for its own format, in which external data would be
// found by nobody.
static std::string graph_name(const JsonPlace& place) {
  const std::string name = plain_name(place);
  expect(fs::path(name).extension() == ".onnx", place.where, "'" + name + "'",
         "a name that ends in .onnx");
  return name;
}

// What every package ran on before the manifest said it.
static constexpr const char* kFirstVersion = "1.28";
// What has another form for older ones, if it is of target ort.
static constexpr Version kNewVersion = {1, 32};

void Package::read_needs(const JsonPlace& manifest) {
  const auto least = manifest.find("onnxruntime");
  onnxruntime = least ? least->text() : kFirstVersion;
  expect(version_of(onnxruntime).has_value(), least ? least->where : "", "'" + onnxruntime + "'",
         "a version such as 1.32");
  const JsonPlace features = manifest.at("unsupported");
  for (size_t i = 0; i < features.size(); ++i) unsupported.push_back(features.at(i).text());
  expect(runs("provider cpu"), manifest.where, "a package for CUDA",
         "one for the CPU: export again with --provider cpu");
  expect(!manifest.find("stage"), manifest.where, "a package of some layers alone",
         "one of all layers: export again without --layers");
}

bool Package::runs(const std::string& feature) const {
  return std::find(unsupported.begin(), unsupported.end(), feature) == unsupported.end();
}

void Package::check_runtime(const std::string& found) const {
  if (version_of(found) >= version_of(onnxruntime)) return;
  const auto is_qmoe = [](const std::string& op) { return op == "QMoE"; };
  const bool has_qmoe = std::any_of(ops.begin(), ops.end(), is_qmoe);
  const std::string older = has_qmoe ? "--experts int8" : "--onnxruntime 1.28";
  const bool has_older = target == "ort" && version_of(onnxruntime) >= kNewVersion;
  throw Error(folder.string() + ": this package needs ONNX Runtime " + onnxruntime + ", found " +
              found + ": " +
              (has_older ? "export it with --target ort " + older : "use that or a newer one"));
}

void Package::read_model(const JsonPlace& manifest) {
  graph = file_in(folder, graph_name(manifest.at("graph")));
  vocab = manifest.at("vocab_size").integer(1, kVocabLimit);
  longest = manifest.at("longest").integer(1, kLongestLimit);
  const JsonPlace uses = manifest.at("ops");
  for (size_t i = 0; i < uses.size(); ++i) ops.push_back(uses.at(i).at("name").text());
  const JsonPlace files = manifest.at("tokenizer_files");
  expect(files.size() <= kTokenizerFilesLimit, files.where, std::to_string(files.size()) + " files",
         "at most " + std::to_string(kTokenizerFilesLimit));
  for (size_t i = 0; i < files.size(); ++i) tokenizer_files.push_back(plain_name(files.at(i)));
}

void Package::read_cache(const JsonPlace& manifest) {
  const JsonPlace dtype = manifest.at("kv_dtype");
  kv_dtype = target == "ort" ? dtype.one_of({"float32", "float16"})
                             : dtype.one_of({"float32", "float16", "bfloat16"});
  const JsonPlace cache = manifest.at("cache");
  expect(cache.size() >= 1 && cache.size() <= kLayersLimit, cache.where,
         std::to_string(cache.size()) + " layers", "1 to " + std::to_string(kLayersLimit));
  std::set<std::string> names;
  for (size_t i = 0; i < cache.size(); ++i) {
    const JsonPlace place = cache.at(i);
    CacheLayer layer;
    layer.window = place.at("window").integer(0, kLongestLimit);
    // A window sees a token that it does not keep; a full layer keeps all; target ort has no op
    // that keeps some.
    const int64_t most_kept = target == "ort" ? 0 : std::max<int64_t>(layer.window - 1, 0);
    layer.sink_tokens = place.at("sink_tokens").integer(0, most_kept);
    layer.kv_heads = place.at("kv_heads").integer(1, kHeadsLimit);
    layer.head_dim = place.at("head_dim").integer(1, kHeadsLimit);
    const auto name_at = [&](const char* key) {
      const JsonPlace name = place.at(key);
      expect(names.insert(name.text()).second, name.where, "'" + name.text() + "' again",
             "a name of its own");
      return name.text();
    };
    layer.past_key = name_at("past_key");
    layer.past_value = name_at("past_value");
    layer.present_key = name_at("present_key");
    layer.present_value = name_at("present_value");
    layers.push_back(layer);
  }
}

// A name below the root of mode `reference`: relative, and never up. `*` begins the locations that
// ONNX Runtime takes for addresses in memory, such as */_ORT_MEM_ADDR_/*.
static void expect_below(const fs::path& name, const std::string& where) {
  bool below = name.is_relative() && !name.empty();
  for (const fs::path& part : name) below = below && part != ".." && part != "*";
  expect(below, where, "'" + name.string() + "'", "a name below the weights' root");
}

// Throws unless a file has the size, and where others may write it the modification time, that the
// manifest says. A package's own file has another time once the folder is copied.
static void check_weight_file(const FileState& state, const fs::path& path, const JsonPlace& entry,
                              bool is_own) {
  const std::string hint = ", as when the package was written: export it again";
  const int64_t size = entry.at("size").integer(0, INT64_MAX);
  const int64_t mtime_ns = entry.at("mtime_ns").integer(INT64_MIN, INT64_MAX);
  expect(state.size == size, path, std::to_string(state.size) + " bytes",
         std::to_string(size) + hint);
  expect(is_own || state.mtime_ns == mtime_ns, path,
         "modification time " + std::to_string(state.mtime_ns) + " ns",
         std::to_string(mtime_ns) + hint);
}

void Package::read_weights(const JsonPlace& manifest) {
  const JsonPlace place = manifest.at("weights");
  const std::string& mode = place.at("mode").one_of({"link", "copy", "reference"});
  const bool elsewhere = mode == "reference";
  const auto root = place.find("root");
  expect(root.has_value() == elsewhere, place.where + "/root", root ? root->text() : "null",
         elsewhere ? "a folder, in mode reference" : "null, in mode " + mode);
  weights_root = elsewhere ? fs::path(root->text()) : fs::absolute(folder);
  expect(weights_root.is_absolute(), place.where + "/root", weights_root, "an absolute path");
  const JsonPlace files = place.at("files");
  for (size_t i = 0; i < files.size(); ++i) {
    const JsonPlace entry = files.at(i);
    const JsonPlace name = entry.at("name");
    const JsonPlace origin = entry.at("origin");
    const bool is_exported = origin.one_of({"checkpoint", "export"}) == "export";
    expect(!(elsewhere && is_exported), origin.where, "export",
           "checkpoint, as all weights in mode reference");
    if (elsewhere) {
      expect_below(name.text(), name.where);
    } else {
      expect_plain_name(name.text(), name.where);
    }
    const auto file = std::make_shared<RegularFile>(file_in(weights_root, name.text()));
    const FileState state = file->state();
    check_weight_file(state, file->path, entry, mode == "copy" || is_exported);
    weights.push_back({name.text(), file, state, tensors_of(*file)});
  }
}

// One token, or several.
static Tokens tokens_at(const JsonPlace& place) {
  const bool several = std::holds_alternative<Json::Array>(place.value.value);
  return several ? place.integers(0, INT32_MAX) : Tokens{place.integer(0, INT32_MAX)};
}

void Package::read_eos_tokens(const JsonPlace& manifest) {
  const std::string name = "generation_config.json";
  const bool has_config = is_there(folder / name);
  const Json document = has_config ? read_json(file_in(folder, name)) : Json{Json::Object()};
  const JsonPlace config(document, folder / name);
  if (const auto place = config.find("eos_token_id")) {
    eos_tokens = tokens_at(*place);
  } else if (const auto own = manifest.find("eos_tokens")) {
    eos_tokens = tokens_at(*own);
  }
}

void Package::check_tokens(const Tokens& tokens, const std::string& thing) const {
  for (const int64_t id : tokens) {
    if (id >= 0 && id < vocab) continue;
    throw Error(thing + ": found token " + std::to_string(id) + ", expected 0 to " +
                std::to_string(vocab - 1));
  }
}

void Package::check_prompt(const Tokens& tokens, int64_t room) const {
  expect(!tokens.empty(), "prompt", "no tokens", "at least one");
  expect(static_cast<int64_t>(tokens.size()) <= room, "prompt",
         std::to_string(tokens.size()) + " tokens",
         "at most " + std::to_string(room) + ", the room in the cache");
  check_tokens(tokens, "prompt");
}

static void expect_same(const WeightFile& weights, const FileState& found) {
  expect(found == weights.state, weights.file->path,
         "a file that changed since the package was opened",
         "the same weights for as long as they are used; open the package again, or export it "
         "with --weights copy, which no training run rewrites");
}

void Package::check_unchanged() const {
  for (const WeightFile& each : weights) expect_same(each, each.file->state());
}

void Package::check_mapped() const {
  for (const WeightFile& each : weights) expect_same(each, state_of(each.file->path));
}

std::string Package::read_graph() const {
  std::string model = read_file(graph, kGraphLimit);
  for (const ExternalTensor& tensor : external_tensors(model, graph)) {
    const auto has_name = [&](const WeightFile& each) { return each.name == tensor.file; };
    const auto found = std::find_if(weights.begin(), weights.end(), has_name);
    const std::string thing = graph.string() + ": tensor '" + tensor.name + "'";
    expect(found != weights.end(), thing, "its data in '" + tensor.file + "'",
           "a file that the manifest lists under weights");
    const auto& [offset, length] = tensor.range;
    expect(lies_in_one(found->tensors, tensor.range), thing,
           std::to_string(length) + " bytes from " + std::to_string(offset) + " on",
           "one tensor, or a part of one, of " + found->file->path.string());
  }
  return model;
}

}  // namespace gptoss

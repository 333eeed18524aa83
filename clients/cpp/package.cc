#include <sys/stat.h>

#include <algorithm>

#include "gptoss.h"

namespace gptoss {
namespace {

namespace fs = std::filesystem;

// Token ids that end a text: one, a list, or none.
Tokens eos_tokens(const Json& manifest, const fs::path& config_file) {
  const Json config = fs::exists(config_file) ? Json::read(config_file) : Json();
  const bool configured = config.has("eos_token_id");
  const Json& source = configured ? config : manifest;
  const std::string key = configured ? "eos_token_id" : "model/eos_token_id";
  if (!source.has(key)) return {};
  return std::holds_alternative<int64_t>(source.values.at(key)) ? Tokens{source.get<int64_t>(key)} : source.list<int64_t>(key);
}

// That the weight files are those the package was made with: size and, where others may write them, time.
void check_weights(const Json& manifest, const fs::path& root) {
  for (size_t i = 0; i < manifest.get<Json::Size>("weights/files"); ++i) {
    const std::string entry = "weights/files/" + std::to_string(i) + "/", hint = ", as when the package was written";
    const fs::path name = manifest.get<std::string>(entry + "name"), path = root / name;
    const bool below = name.is_relative() && std::count(name.begin(), name.end(), "..") == 0;
    expect(below, entry + "name", name, "a name below the weights' root");
    struct stat file;
    expect(stat(path.c_str(), &file) == 0, path, "no such file", "the package's weights");
    const int64_t size = manifest.get<int64_t>(entry + "size"), time = manifest.get<int64_t>(entry + "mtime_ns");
    expect(file.st_size == size, path, std::to_string(file.st_size) + " bytes", std::to_string(size) + hint);
    if (manifest.get<std::string>("weights/mode") == "copy" || manifest.get<std::string>(entry + "origin") == "export")
      continue;  // the package's own: copying the folder changes the time
    const int64_t found = file.st_mtim.tv_sec * 1000000000LL + file.st_mtim.tv_nsec;
    expect(found == time, path, "modification time " + std::to_string(found) + " ns", std::to_string(time) + hint);
  }
}

}  // namespace

Package::Package(const fs::path& path) : folder(path) {
  expect(fs::exists(folder / "manifest.json"), folder, "no manifest.json in it", "a package folder");
  const Json manifest = Json::read(folder / "manifest.json");
  try {
    const auto text = [&](const std::string& key) { return manifest.get<std::string>(key); };
    const auto integer = [&](const std::string& key) { return manifest.get<int64_t>(key); };
    expect(text("format") == "gptoss-onnx", "format", text("format"), "gptoss-onnx");
    expect(integer("format_version") == 1, "format_version", std::to_string(integer("format_version")), "1");
    target = text("target");
    expect(target == "portable", "target", target, "portable, which this client runs: export again without --target");
    graph = folder / text("graph");
    kv_dtype = text("kv_dtype");
    vocab = integer("model/vocab_size");
    longest = integer("model/max_position_embeddings");
    for (size_t i = 0; i < manifest.get<Json::Size>("cache"); ++i) {
      const std::string layer = "cache/" + std::to_string(i) + "/";
      cache.push_back({integer(layer + "window"), integer(layer + "kv_heads"), integer(layer + "head_dim"),
                       text(layer + "past_key"), text(layer + "past_value"),
                       text(layer + "present_key"), text(layer + "present_value")});
    }
    for (size_t i = 0; i < manifest.get<Json::Size>("ops"); ++i) ops.push_back(text("ops/" + std::to_string(i) + "/name"));
    if (manifest.has("weights/root")) weights_root = text("weights/root");
    check_weights(manifest, weights_root.empty() ? folder : weights_root);
    eos_tokens = gptoss::eos_tokens(manifest, folder / "generation_config.json");
  } catch (const Error& error) {
    throw Error((folder / "manifest.json").string() + ": " + error.what());
  }
}

void Package::check(const Tokens& tokens, int64_t room) const {
  expect(!tokens.empty(), "prompt", "no tokens", "at least one");
  expect(static_cast<int64_t>(tokens.size()) <= room, "prompt", std::to_string(tokens.size()) + " tokens",
         "at most " + std::to_string(room) + ", the room in the cache");
  for (const int64_t token : tokens)
    expect(token >= 0 && token < vocab, "prompt", "token " + std::to_string(token), "0 to " + std::to_string(vocab - 1));
}

}  // namespace gptoss

#include <sys/stat.h>

#include "gptoss.h"

namespace gptoss {

// Size and, where others may write the file, modification time.
static void check_weight_file(const Json& manifest, const std::filesystem::path& root, const std::string& entry) {
  const std::filesystem::path name = manifest.get<std::string>(entry + "name"), path = root / name;
  const bool below = name.is_relative() && std::count(name.begin(), name.end(), "..") == 0;
  expect(below, manifest.file + ": " + entry + "name", name, "a name below the weights' root");
  struct stat file;
  expect(stat(path.c_str(), &file) == 0, path, "no such file", "weights of " + manifest.file);
  const int64_t size = manifest.get<int64_t>(entry + "size"), time = manifest.get<int64_t>(entry + "mtime_ns");
  const std::string hint = ", as when the package was written: export it again";
  expect(file.st_size == size, path, std::to_string(file.st_size) + " bytes", std::to_string(size) + hint);
  if (manifest.get<std::string>("weights/mode") == "copy" || manifest.get<std::string>(entry + "origin") == "export")
    return;  // the package's own file: copying the folder changed its time
  const int64_t found = file.st_mtim.tv_sec * 1000000000LL + file.st_mtim.tv_nsec;
  expect(found == time, path, "modification time " + std::to_string(found) + " ns", std::to_string(time) + hint);
}

Package::Package(const std::filesystem::path& path) : folder(path) {
  // Before any object of ONNX Runtime exists: without its functions none could even be destroyed.
  expect(OrtGetApiBase()->GetApi(ORT_API_VERSION) != nullptr, "libonnxruntime", OrtGetApiBase()->GetVersionString(),
         "1." + std::to_string(ORT_API_VERSION) + " or newer, as the headers this was built with");
  expect(std::filesystem::exists(folder / "manifest.json"), folder, "no manifest.json in it", "a package folder");
  manifest = Json::read(folder / "manifest.json");
  const auto format = manifest.get<std::string>("format"), target = manifest.get<std::string>("target");
  const auto version = manifest.get<int64_t>("format_version");
  expect(format == "gptoss-onnx", manifest.file + ": format", format, "gptoss-onnx");
  expect(version == 1, manifest.file + ": format_version", std::to_string(version), "1");
  expect(target == "portable", manifest.file + ": target", target, "portable: export again without --target");
  vocab = manifest.get<int64_t>("model/vocab_size");
  longest = manifest.get<int64_t>("model/max_position_embeddings");
  const auto* elsewhere = manifest.find<std::string>("weights/root");
  const std::filesystem::path root = elsewhere != nullptr ? *elsewhere : folder.string();
  for (size_t i = 0; i < manifest.get<Json::Size>("weights/files"); ++i)
    check_weight_file(manifest, root, "weights/files/" + std::to_string(i) + "/");
  const auto config_file = folder / "generation_config.json";
  const Json config = std::filesystem::exists(config_file) ? Json::read(config_file) : Json();
  const Json& source = config.values.count("eos_token_id") != 0 ? config : manifest;
  const std::string key = &source == &config ? "eos_token_id" : "model/eos_token_id";  // one token, several, or none
  if (const auto* token = source.find<int64_t>(key)) eos_tokens = {*token};
  else if (source.find<Json::Size>(key) != nullptr) eos_tokens = source.list<int64_t>(key);
}

void Package::check(const Tokens& tokens, int64_t room) const {
  expect(!tokens.empty(), "prompt", "no tokens", "at least one");
  expect(static_cast<int64_t>(tokens.size()) <= room, "prompt", std::to_string(tokens.size()) + " tokens",
         "at most " + std::to_string(room) + ", the room in the cache");
  for (const int64_t id : tokens)
    expect(id >= 0 && id < vocab, "prompt", "token " + std::to_string(id), "0 to " + std::to_string(vocab - 1));
}

}  // namespace gptoss

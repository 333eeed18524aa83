#include "manifest_format_1.h"

#include <algorithm>

namespace gptoss {

// Sets a member, at its place in the order of the keys.
static void set(Json& object, const std::string& key, Json value) {
  auto& members = std::get<Json::Object>(object.value);
  const auto before = [](const Json::Member& a, const std::string& b) { return a.key < b; };
  const auto at = std::lower_bound(members.begin(), members.end(), key, before);
  if (at != members.end() && at->key == key) {
    at->value = std::move(value);
  } else {
    members.insert(at, {key, std::move(value)});
  }
}

Json upgraded(const JsonPlace& manifest) {
  const JsonPlace model = manifest.at("model");
  const JsonPlace cache = manifest.at("cache");
  Json::Array layers;
  for (size_t i = 0; i < cache.size(); ++i) {
    const JsonPlace layer = cache.at(i);
    layer.keys();  // or it throws
    layers.push_back(layer.value);
    set(layers.back(), "sink_tokens", {int64_t{0}});
  }
  Json result = manifest.value;
  set(result, "vocab_size", model.at("vocab_size").value);
  set(result, "longest", model.at("max_position_embeddings").value);
  if (const auto eos = model.find("eos_token_id")) set(result, "eos_tokens", eos->value);
  set(result, "cache", {std::move(layers)});
  return result;
}

}  // namespace gptoss

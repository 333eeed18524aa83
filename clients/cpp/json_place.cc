#include "json.h"

#include <algorithm>

#include "text.h"

namespace gptoss {

JsonPlace::JsonPlace(const Json& value_, const std::string& file)
    : value(value_), where(file), is_document_(true) {}

JsonPlace::JsonPlace(const Json& value_, const JsonPlace& parent, const std::string& part)
    : value(value_), where(parent.where + (parent.is_document_ ? ": " : "/") + part) {}

template <class T>
const T& JsonPlace::get() const {
  constexpr const char* kKinds[] = {"null",     "a boolean", "an integer", "a number",
                                    "a string", "an array",  "an object"};
  if (const T* held = std::get_if<T>(&value.value)) return *held;
  const size_t expected = decltype(value.value)(T()).index();
  throw Error(where + ": found " + kKinds[value.value.index()] + ", expected " + kKinds[expected]);
}

const Json* JsonPlace::member(const std::string& key) const {
  const auto& members = get<Json::Object>();
  const auto before = [](const Json::Member& a, const std::string& b) { return a.key < b; };
  const auto found = std::lower_bound(members.begin(), members.end(), key, before);
  return found != members.end() && found->key == key ? &found->value : nullptr;
}

JsonPlace JsonPlace::at(const std::string& key) const {
  const Json* found = member(key);
  if (found != nullptr) return JsonPlace(*found, *this, key);
  throw Error(JsonPlace({}, *this, key).where + ": found nothing, expected a value");
}

std::optional<JsonPlace> JsonPlace::find(const std::string& key) const {
  const Json* found = member(key);
  const bool is_null = found != nullptr && std::holds_alternative<std::nullptr_t>(found->value);
  if (found == nullptr || is_null) return std::nullopt;
  return JsonPlace(*found, *this, key);
}

std::vector<std::string> JsonPlace::keys() const {
  std::vector<std::string> result;
  for (const Json::Member& member : get<Json::Object>()) result.push_back(member.key);
  return result;
}

size_t JsonPlace::size() const { return get<Json::Array>().size(); }

JsonPlace JsonPlace::at(size_t index) const {
  const auto& elements = get<Json::Array>();
  expect(index < elements.size(), where, std::to_string(elements.size()) + " elements",
         "more than " + std::to_string(index));
  return JsonPlace(elements[index], *this, std::to_string(index));
}

const std::string& JsonPlace::text() const { return get<std::string>(); }

const std::string& JsonPlace::one_of(std::initializer_list<const char*> texts) const {
  std::string expected;
  for (const char* each : texts) {
    if (text() == each) return text();
    expected += (expected.empty() ? "" : " or ") + std::string(each);
  }
  throw Error(where + ": found " + text() + ", expected " + expected);
}

int64_t JsonPlace::integer(int64_t least, int64_t most) const {
  const int64_t found = get<int64_t>();
  expect(found >= least && found <= most, where, std::to_string(found),
         std::to_string(least) + " to " + std::to_string(most));
  return found;
}

std::vector<int64_t> JsonPlace::integers(int64_t least, int64_t most) const {
  std::vector<int64_t> result;
  for (const Json& element : get<Json::Array>()) {
    const auto* integer = std::get_if<int64_t>(&element.value);
    const bool fits = integer != nullptr && *integer >= least && *integer <= most;
    result.push_back(fits ? *integer : at(result.size()).integer(least, most));  // or it throws
  }
  return result;
}

std::vector<double> JsonPlace::numbers() const {
  std::vector<double> result;
  for (const Json& element : get<Json::Array>()) {
    const auto* integer = std::get_if<int64_t>(&element.value);
    const auto* real = std::get_if<double>(&element.value);
    if (integer != nullptr) {
      result.push_back(static_cast<double>(*integer));
    } else {
      result.push_back(real != nullptr ? *real : at(result.size()).get<double>());  // or it throws
    }
  }
  return result;
}

}  // namespace gptoss

// JSON (RFC 8259): a strict reader for the files of a package, with limits, and a writer.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace gptoss {

constexpr size_t kJsonLimit = 16'000'000;  // bytes of one document

// A value of a document. Its size in memory is at most some 20 times that of its text.
struct Json {
  struct Member;
  using Array = std::vector<Json>;
  using Object = std::vector<Member>;  // in the order of the keys, each of them once

  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value;
};

struct Json::Member {
  std::string key;
  Json value;
};

// Reads a text in UTF-8; errors begin with `where`. It refuses what is not JSON (NaN, Infinity), a
// key that appears twice, NUL and halves of surrogate pairs in strings, nesting beyond 100 levels,
// and a number of more than 400 characters.
Json parse_json(std::string_view text, const std::string& where);

// Reads a file of at most kJsonLimit bytes.
Json read_json(const std::filesystem::path& file);

// A value and its place in the document, which errors name: "manifest.json: cache/0/window". The
// document must live as long.
class JsonPlace {
 public:
  JsonPlace(const Json& value, const std::string& file);

  // A member of an object; find() returns none where the member is missing, or null.
  JsonPlace at(const std::string& key) const;
  std::optional<JsonPlace> find(const std::string& key) const;

  std::vector<std::string> keys() const;  // of an object

  size_t size() const;  // of an array
  JsonPlace at(size_t index) const;

  const std::string& text() const;
  const std::string& one_of(std::initializer_list<const char*> texts) const;
  int64_t integer(int64_t least, int64_t most) const;
  std::vector<int64_t> integers(int64_t least, int64_t most) const;
  std::vector<double> numbers() const;

  const Json& value;
  const std::string where;

 private:
  JsonPlace(const Json& value, const JsonPlace& parent, const std::string& part);
  const Json* member(const std::string& key) const;
  template <class T>
  const T& get() const;

  bool is_document_ = false;
};

// A text in quotation marks, with control characters escaped; bytes that are not UTF-8 become
// U+FFFD.
std::string json_string(std::string_view text);

// The text of a value: null, a boolean, a number (null where JSON has none), a string, an object
// or an array.
struct JsonText {
  JsonText() = default;
  template <class T>
  JsonText(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      text = value ? "true" : "false";
    } else if constexpr (!std::is_arithmetic_v<T>) {
      text = json_string(value);
    } else if (std::isfinite(static_cast<double>(value))) {
      char digits[32];
      text.assign(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
    }
  }
  JsonText(std::initializer_list<std::pair<std::string, JsonText>> members);
  JsonText(const std::vector<JsonText>& elements);

  std::string text = "null";
};

}  // namespace gptoss

// A strict reader of JSON (RFC 8259) for the files of a package, and a writer.
#include <fstream>
#include <regex>

#include "gptoss.h"

namespace gptoss {

struct Reader {
  std::string text;
  Json json;
  size_t at = 0;  // the next character

  [[noreturn]] void fail(const std::string& expected) const {
    const std::string found = at == text.size() ? "the end" : text[at] > ' ' ? text.substr(at, 1) : "another character";
    throw Error(json.file + ": not JSON: byte " + std::to_string(at) + ": found " + found + ", expected " + expected);
  }

  bool take(const std::string& token, const char* space = " \t\r\n") {
    at = std::min(text.find_first_not_of(space, at), text.size());
    const bool here = text.compare(at, token.size(), token) == 0;
    if (here) at += token.size();
    return here;
  }

  void value(const std::string& path, int depth) {
    if (depth > 100) fail("at most 100 levels of arrays and objects");
    Json::Value& result = json.values[path];
    if (take("{")) result = elements(path, depth, "}", true);
    else if (take("[")) result = elements(path, depth, "]", false);
    else if (take("\"")) result = string();
    else if (take("true")) result = true;
    else if (take("false")) result = false;
    else if (!take("null")) result = number();
  }

  Json::Size elements(const std::string& path, int depth, const char* end, bool have_keys) {
    Json::Size size = 0;
    for (; !take(end); ++size) {
      if (size > 0 && !take(",")) fail("a comma");
      if (have_keys && !take("\"")) fail("a key");
      const std::string key = have_keys ? string() : std::to_string(size);
      if (have_keys && !take(":")) fail("a colon");
      value(depth == 0 ? key : path + "/" + key, depth + 1);
    }
    return size;
  }

  Json::Value number() {
    static const std::regex kNumber(R"(-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?)");
    const size_t size = std::min(text.find_first_not_of("+-.0123456789eE", at), text.size()) - at;
    const char *begin = text.data() + at, *end = begin + size;
    // A regular expression takes stack for each character.
    if (size > 1000 || !std::regex_match(begin, end, kNumber)) fail(size == 0 ? "a value" : "a number of JSON");
    int64_t integer = 0;
    double real = 0;
    at += size;
    const auto [stop, error] = std::from_chars(begin, end, integer);
    if (stop == end && error == std::errc()) return integer;
    if (std::from_chars(begin, end, real).ec != std::errc()) fail("a number that a double holds before this");
    return real;
  }

  std::string string() {  // after its first quotation mark
    constexpr std::string_view kEscapes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    std::string result;
    for (; !take("\"", ""); ++at) {
      if (at == text.size() || static_cast<unsigned char>(text[at]) < ' ') fail("a character of a string");
      if (!take("\\", "")) result += text[at];
      else if (text[at] == 'u') result += unicode();
      else if (const size_t escape = kEscapes.find(text[at]); escape != kEscapes.npos) result += kMeanings[escape];
      else fail("an escape");
    }
    return result;
  }

  std::string unicode() try {  // a run of \u escapes, which is UTF-16: from its first u to its last digit
    std::u16string units;
    for (++at; units.empty() || take("\\u", ""); at += 4) {
      const char *digits = text.c_str() + at, *end = text.c_str() + std::min(at + 4, text.size());
      uint16_t unit = 0;
      if (std::from_chars(digits, end, unit, 16).ptr != digits + 4) fail("four hexadecimal digits");
      units += unit;
    }
    --at;
    return std::filesystem::path(units).u8string();
  } catch (const std::system_error&) {
    fail("the end of a surrogate pair");
  }
};

Json Json::read(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(file + ": cannot be read, expected JSON");
  Reader reader{std::string(std::istreambuf_iterator<char>(stream), {}), {file, {}}};
  reader.value("", 0);
  if (!reader.take("") || reader.at != reader.text.size()) reader.fail("the end");
  return reader.json;
}

std::string json_string(const std::string& text) {
  std::string literal = "\"";
  for (const unsigned char c : text) {
    if (c == '"' || c == '\\') literal += '\\';
    if (c >= ' ') literal += static_cast<char>(c);
    else literal += std::string("\\u00") + "0123456789abcdef"[c >> 4] + "0123456789abcdef"[c & 15];
  }
  return literal + '"';
}

JsonText::JsonText(std::initializer_list<std::pair<std::string, JsonText>> members) : text("{") {
  for (const auto& [key, value] : members) text += (text == "{" ? "" : ", ") + json_string(key) + ": " + value.text;
  text += "}";
}

JsonText::JsonText(const std::vector<JsonText>& elements) : text("[") {
  for (const JsonText& element : elements) text += (text == "[" ? "" : ", ") + element.text;
  text += "]";
}

}  // namespace gptoss

#include "json.h"

#include <charconv>
#include <cmath>
#include <fstream>

namespace gptoss {
namespace {

struct Reader {
  const std::string& text;
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
    const std::string below = depth == 0 ? "" : path + "/";
    auto& result = json.values[path];
    if (take("{")) result = elements("}", depth, [&](size_t) { return below + key(); });
    else if (take("[")) result = elements("]", depth, [&](size_t index) { return below + std::to_string(index); });
    else if (take("\"")) result = string();
    else if (take("true")) result = true;
    else if (take("false")) result = false;
    else if (!take("null")) number(result);
  }

  template <class Path>
  Json::Size elements(const char* end, int depth, const Path& path) {
    Json::Size size = 0;
    for (; !take(end); ++size) {
      if (size > 0 && !take(",")) fail("a comma");
      value(path(size), depth + 1);
    }
    return size;
  }

  std::string key() {
    if (!take("\"")) fail("a key");
    std::string key = string();
    if (!take(":")) fail("a colon");
    return key;
  }

  template <class Value>
  void number(Value& result) {
    const char* begin = text.c_str() + at;
    const auto next_in = [&](std::string_view set) { return set.find(text[at]) != set.npos; };
    const auto digits = [&] {
      if (!next_in("0123456789")) fail("a value");
      while (next_in("0123456789")) ++at;
    };
    take("-", "");
    if (!take("0", "")) digits();
    const bool whole = !next_in(".eE");
    if (take(".", "")) digits();
    if (take("e", "") || take("E", "")) {
      if (!take("+", "")) take("-", "");
      digits();
    }
    int64_t integer = 0;
    double real = 0;
    if (whole && std::from_chars(begin, text.c_str() + at, integer).ec == std::errc()) result = integer;
    else if (std::from_chars(begin, text.c_str() + at, real).ec == std::errc()) result = real;
    else fail("a number that a double holds before this");
  }

  std::string string() {  // after its first quotation mark
    constexpr std::string_view kEscapes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    std::string result;
    for (; !take("\"", ""); ++at) {
      if (at == text.size() || static_cast<unsigned char>(text[at]) < ' ') fail("a character of a string");
      if (!take("\\", "")) result += text[at];
      else if (text[at] == 'u') append_utf8(result, code_point());
      else if (const size_t escape = kEscapes.find(text[at]); escape != kEscapes.npos) result += kMeanings[escape];
      else fail("an escape");
    }
    return result;
  }

  uint32_t code_point() {  // `at` goes from the u to the last digit of it, or of the surrogate pair it begins
    const uint32_t high = code_unit();
    if (high < 0xD800 || high > 0xDFFF) return high;
    const bool pair = high < 0xDC00 && text.compare(at + 1, 2, "\\u") == 0;
    if (pair) at += 2;
    const uint32_t low = pair ? code_unit() : 0;
    if (low < 0xDC00 || low > 0xDFFF) fail("the end of a surrogate pair");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  uint32_t code_unit() {
    uint32_t unit = 0;
    const char* digits = text.c_str() + at + 1;  // text ends in a zero, which is no digit
    if (std::from_chars(digits, digits + std::min<size_t>(4, text.size() - at - 1), unit, 16).ptr != digits + 4)
      fail("four hexadecimal digits after it");
    at += 4;
    return unit;
  }

  static void append_utf8(std::string& result, uint32_t point) {
    const int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;  // bytes after the first
    constexpr int kFirst[] = {0x00, 0xC0, 0xE0, 0xF0};
    result += static_cast<char>(kFirst[more] | point >> 6 * more);
    for (int left = more - 1; left >= 0; --left) result += static_cast<char>(0x80 | (point >> 6 * left & 0x3F));
  }
};

}  // namespace

Json Json::parse(const std::string& text, const std::string& file) {
  Reader reader{text, {file, {}}};
  reader.value("", 0);
  if (!reader.take("") || reader.at != text.size()) reader.fail("the end");
  return reader.json;
}

Json Json::read(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(file + ": cannot be read, expected JSON");
  return parse(std::string(std::istreambuf_iterator<char>(stream), {}), file);
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

std::string json_number(double value) {
  char text[32];
  return std::isfinite(value) ? std::string(text, std::to_chars(text, text + 32, value).ptr) : "null";
}

std::string json_object(std::initializer_list<std::pair<std::string, std::string>> members) {
  std::string text;
  for (const auto& [key, value] : members) text += (text.empty() ? "" : ", ") + json_string(key) + ": " + value;
  return "{" + text + "}";
}

}  // namespace gptoss

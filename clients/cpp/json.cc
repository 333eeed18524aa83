#include "json.h"

#include <charconv>
#include <cmath>
#include <fstream>
#include <regex>
#include <sstream>

namespace gptoss {
namespace {

constexpr int kDeepest = 100;  // levels of arrays and objects: recursion must not eat the stack

// One pass over the text; `at` is the next character.
struct Reader {
  const std::string& text;
  Json json = {};
  size_t at = 0;

  [[noreturn]] void fail(const std::string& expected) const {
    const std::string found = at < text.size() ? json_string(text.substr(at, 1)) : "the end";
    throw Error("not JSON: byte " + std::to_string(at) + ": found " + found + ", expected " + expected);
  }

  bool take(const std::string& token) {
    const bool here = text.compare(at, token.size(), token) == 0;
    if (here) at += token.size();
    return here;
  }

  bool take_after_space(const std::string& token) {
    at = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
    return take(token);
  }

  void expect(const std::string& token) {
    if (!take_after_space(token)) fail(json_string(token));
  }

  void value(const std::string& path, int depth = 0) {
    if (depth > kDeepest) fail("at most " + std::to_string(kDeepest) + " levels");
    const std::string below = depth == 0 ? "" : path + "/";
    auto& result = json.values[path];
    Json::Size size = 0;
    if (take_after_space("{")) {
      for (; !take_after_space("}"); ++size) {
        if (size > 0) expect(",");
        const std::string key = string();
        expect(":");
        value(below + key, depth + 1);
      }
      result = size;
    } else if (take("[")) {
      for (; !take_after_space("]"); ++size) {
        if (size > 0) expect(",");
        value(below + std::to_string(size), depth + 1);
      }
      result = size;
    } else if (text[at] == '"') result = string();
    else if (take("true")) result = true;
    else if (take("false")) result = false;
    else if (!take("null")) number(result);
  }

  template <class Value>
  void number(Value& result) {
    static const std::regex kGrammar("-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?");
    std::cmatch match;
    const char* begin = text.c_str() + at;
    if (!std::regex_search(begin, match, kGrammar, std::regex_constants::match_continuous)) fail("a value");
    int64_t integer = 0;
    double real = 0;
    if (match.length(2) + match.length(3) == 0 && std::from_chars(begin, match[0].second, integer).ec == std::errc())
      result = integer;
    else if (std::from_chars(begin, match[0].second, real).ec == std::errc()) result = real;
    else fail("a number that a double holds");
    at += match.length();
  }

  std::string string() {
    std::string result;
    for (expect("\""); !take("\"");) {
      if (at == text.size() || static_cast<unsigned char>(text[at]) < 0x20) fail("a character of a string");
      if (!take("\\")) result += text[at++];
      else if (take("u")) append_utf8(result, code_point());
      else {
        const size_t escape = std::string("\"\\/bfnrt").find(text[at]);
        if (escape == std::string::npos) fail("an escape");
        result += "\"\\/\b\f\n\r\t"[escape];
        ++at;
      }
    }
    return result;
  }

  uint32_t code_point() {  // what follows \u: four digits, or those of a surrogate pair
    const uint32_t high = code_unit();
    if (high < 0xD800 || high > 0xDFFF) return high;
    const uint32_t low = high < 0xDC00 && take("\\u") ? code_unit() : 0;
    if (low < 0xDC00 || low > 0xDFFF) fail("two surrogates that make a pair before this");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  uint32_t code_unit() {
    uint32_t unit = 0;
    const char* begin = text.c_str() + at;
    if (std::from_chars(begin, begin + std::min<size_t>(4, text.size() - at), unit, 16).ptr != begin + 4)
      fail("four hexadecimal digits");
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

Json Json::parse(const std::string& text) {
  Reader reader{text};
  reader.value("");
  reader.take_after_space("");
  if (reader.at != text.size()) reader.fail("the end");
  return std::move(reader.json);
}

Json Json::read(const std::string& file) {
  std::ostringstream text;
  if (!(text << std::ifstream(file, std::ios::binary).rdbuf())) throw Error(file + ": cannot be read, expected JSON");
  try {
    return parse(text.str());
  } catch (const Error& error) {
    throw Error(file + ": " + error.what());
  }
}

std::string json_string(const std::string& text) {
  std::string literal = "\"";
  for (const unsigned char c : text) {
    if (c == '"' || c == '\\') literal += '\\';
    if (c >= 0x20) literal += static_cast<char>(c);
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

#include "json.h"

#include <algorithm>

#include "files.h"
#include "text.h"

namespace gptoss {

static constexpr int kDepthLimit = 100;
static constexpr size_t kNumberLimit = 400;  // characters; a double is written with fewer

namespace {

class Reader {
 public:
  Reader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Json document() {
    Json result = value(0);
    skip_space();
    if (at_ != text_.size()) fail("the end");
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    const Character next = character_at(text_, at_);
    std::string found = printable(text_.substr(at_, next.size));
    if (at_ == text_.size())
      found = "the end";
    else if (next.size == 0)
      found = "bytes that are not UTF-8";
    throw Error(where_ + ": not JSON: byte " + std::to_string(at_) + ": found " + found +
                ", expected " + expected);
  }

  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }

  // Whether `token` comes next; passes over it.
  bool take(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  bool take_after_space(std::string_view token) {
    skip_space();
    return take(token);
  }

  Json value(int depth) {
    if (depth > kDepthLimit) fail("at most 100 levels of arrays and objects");
    skip_space();
    if (take("{")) return {object(depth)};
    if (take("[")) return {array(depth)};
    if (take("\"")) return {string()};
    if (take("true")) return {true};
    if (take("false")) return {false};
    if (take("null")) return {nullptr};
    return number();
  }

  Json::Array array(int depth) {
    Json::Array elements;
    while (!take_after_space("]")) {
      if (!elements.empty() && !take(",")) fail("a comma");
      elements.push_back(value(depth + 1));
    }
    return elements;
  }

  Json::Object object(int depth) {
    Json::Object members;
    while (!take_after_space("}")) {
      if (!members.empty() && !take(",")) fail("a comma");
      if (!take_after_space("\"")) fail("a key");
      std::string key = string();
      if (!take_after_space(":")) fail("a colon");
      members.push_back({std::move(key), value(depth + 1)});
    }
    const auto before = [](const Json::Member& a, const Json::Member& b) { return a.key < b.key; };
    const auto same = [](const Json::Member& a, const Json::Member& b) { return a.key == b.key; };
    std::sort(members.begin(), members.end(), before);
    const auto twice = std::adjacent_find(members.begin(), members.end(), same);
    if (twice != members.end()) fail("once the key " + json_string(twice->key) + " before this");
    return members;
  }

  bool take_digits() {
    const size_t begin = at_;
    at_ = std::min(text_.find_first_not_of("0123456789", at_), text_.size());
    return at_ > begin;
  }

  Json number() {
    const size_t begin = at_;
    take("-");
    if (!take("0") && !take_digits()) fail(at_ == begin ? "a value" : "a digit");
    const bool has_fraction = take(".");
    if (has_fraction && !take_digits()) fail("a digit");
    const bool has_exponent = take("e") || take("E");
    if (has_exponent && !take("+")) take("-");
    if (has_exponent && !take_digits()) fail("a digit");
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    if (at_ - begin > kNumberLimit) fail("a number of at most 400 characters before this");
    int64_t integer = 0;
    const bool is_integer = !has_fraction && !has_exponent;
    if (is_integer && std::from_chars(first, last, integer).ec == std::errc()) return {integer};
    double real = 0;
    if (std::from_chars(first, last, real).ec != std::errc()) {
      fail("a number that a double holds before this");
    }
    return {real};
  }

  // A string after its first quotation mark.
  std::string string() {
    constexpr std::string_view kEscapes = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    std::string result;
    while (!take("\"")) {
      const Character next = character_at(text_, at_);
      if (next.size == 0 || next.code < ' ') fail("a character of a string");
      if (next.code != '\\') {
        result += text_.substr(at_, next.size);
        at_ += next.size;
        continue;
      }
      ++at_;
      if (take("u")) {
        append_utf8(result, unicode());
        continue;
      }
      const size_t escape = at_ < text_.size() ? kEscapes.find(text_[at_]) : kEscapes.npos;
      if (escape == kEscapes.npos) fail("an escape");
      result += kMeanings[escape];
      ++at_;
    }
    return result;
  }

  // The character of an escape after its \u, which may be a pair of surrogates.
  char32_t unicode() {
    const char32_t first = four_digits();
    if (first == 0) fail("no NUL before this");
    if (first < 0xD800 || first > 0xDFFF) return first;
    const bool pair = first < 0xDC00 && take("\\u");
    const char32_t second = pair ? four_digits() : 0;
    if (second < 0xDC00 || second > 0xDFFF) fail("the other half of a surrogate pair");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  char32_t four_digits() {
    const std::string_view digits = text_.substr(at_, 4);
    uint16_t code = 0;
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, code, 16);
    if (digits.size() < 4 || stop != end || error != std::errc()) fail("four hexadecimal digits");
    at_ += 4;
    return code;
  }

  static void append_utf8(std::string& text, char32_t code) {
    const auto tail = [&](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3F)); };
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += static_cast<char>(0xC0 | code >> 6);
      text += tail(0);
    } else if (code < 0x10000) {
      text += static_cast<char>(0xE0 | code >> 12);
      text += tail(6);
      text += tail(0);
    } else {
      text += static_cast<char>(0xF0 | code >> 18);
      text += tail(12);
      text += tail(6);
      text += tail(0);
    }
  }

  const std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;  // the next byte
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  return Reader(text, where).document();
}

Json read_json(const std::filesystem::path& file) {
  return parse_json(read_file(file, kJsonLimit), file);
}

}  // namespace gptoss

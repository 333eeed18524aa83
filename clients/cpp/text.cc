#include "text.h"

namespace gptoss {

static constexpr size_t kLineLimit = 1000;  // bytes of an error

Error::Error(const std::string& line) : std::runtime_error(printable(line)) {}

Character character_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  // By the number of leading ones: the size, and the least code that needs this size.
  struct Form {
    unsigned char mask, mark;
    size_t size;
    char32_t least;
  };
  constexpr Form kForms[] = {
      {0xE0, 0xC0, 2, 0x80}, {0xF0, 0xE0, 3, 0x800}, {0xF8, 0xF0, 4, 0x10000}};
  for (const Form& form : kForms) {
    if ((first & form.mask) != form.mark) continue;
    if (text.size() - at < form.size) return {};
    char32_t code = first & static_cast<unsigned char>(~form.mask);
    for (size_t i = 1; i < form.size; ++i) {
      const auto next = static_cast<unsigned char>(text[at + i]);
      if ((next & 0xC0) != 0x80) return {};
      code = code << 6 | (next & 0x3F);
    }
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < form.least || code > 0x10FFFF || surrogate) return {};
    return {code, form.size};
  }
  return {};
}

bool is_control(char32_t code) {
  const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
  const bool line_end = code == 0x2028 || code == 0x2029;
  const bool direction = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
  return control || line_end || direction;
}

std::string hexadecimal(char32_t code, int digits) {
  std::string text(digits, '0');
  for (int i = digits - 1; i >= 0; --i) {
    text[i] = "0123456789abcdef"[code & 15];
    code >>= 4;
  }
  return text;
}

static std::string escaped(char32_t code) {
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  return code < 0x100 ? "\\x" + hexadecimal(code, 2) : "\\u" + hexadecimal(code, 4);
}

std::string printable(std::string_view text, std::string_view kept) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    const size_t size = character.size > 0 ? character.size : 1;
    const bool keep = kept.find(text[at]) != kept.npos;
    if (character.size == 0) {
      result += escaped(static_cast<unsigned char>(text[at]));
    } else if (is_control(character.code) && !keep) {
      result += escaped(character.code);
    } else {
      result += text.substr(at, size);
    }
    at += size;
  }
  return result;
}

std::string error_line(const std::exception& error) {
  std::string_view text = error.what();
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  if (text.size() <= kLineLimit) return printable(text);
  size_t end = kLineLimit;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not within a character
  return printable(text.substr(0, end)) + "…";
}

}  // namespace gptoss

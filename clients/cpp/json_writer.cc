#include "json.h"

#include <algorithm>

#include "text.h"

namespace gptoss {

std::string json_string(std::string_view text) {
  std::string literal = "\"";
  for (size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    const std::string_view bytes = text.substr(at, character.size);
    at += std::max<size_t>(character.size, 1);
    if (character.size == 0) {
      literal += "\\ufffd";
    } else if (is_control(character.code)) {
      literal += "\\u" + hexadecimal(character.code, 4);
    } else {
      if (bytes == "\"" || bytes == "\\") literal += '\\';
      literal += bytes;
    }
  }
  return literal + '"';
}

JsonText::JsonText(std::initializer_list<std::pair<std::string, JsonText>> members) : text("{") {
  for (const auto& [key, value] : members) {
    if (text != "{") text += ", ";
    text += json_string(key) + ": " + value.text;
  }
  text += "}";
}

JsonText::JsonText(const std::vector<JsonText>& elements) : text("[") {
  for (const JsonText& element : elements) {
    if (text != "[") text += ", ";
    text += element.text;
  }
  text += "]";
}

}  // namespace gptoss

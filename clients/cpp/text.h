// Errors, and text of strangers made safe to print.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

namespace gptoss {

// One line: the thing, what was found, what was expected. What strangers wrote is escaped in it: a
// NUL would cut it off, a control character steer the terminal.
struct Error : std::runtime_error {
  explicit Error(const std::string& line);
};

// Throws an Error unless `holds`.
inline void expect(bool holds, const std::string& thing, const std::string& found,
                   const std::string& expected) {
  if (!holds) throw Error(thing + ": found " + found + ", expected " + expected);
}

// One character of a text in UTF-8; a size of 0 bytes says that there is none.
struct Character {
  char32_t code = 0;
  size_t size = 0;
};

// The character that begins at byte `at`; none at the end, and where the bytes are not UTF-8.
Character character_at(std::string_view text, size_t at);

// Whether a character does something to a terminal instead of being shown: controls, line ends,
// and the marks that turn the direction of writing.
bool is_control(char32_t code);

// A code with this many hexadecimal digits.
std::string hexadecimal(char32_t code, int digits);

// A text with its control characters escaped, and the bytes that are not UTF-8. Those in `kept`
// stay: generated text keeps its line ends.
std::string printable(std::string_view text, std::string_view kept = "");

// What a program prints of an error: one printable line of at most some 1,000 characters.
std::string error_line(const std::exception& error);

}  // namespace gptoss

// A strict reader of JSON (RFC 8259) for the files of a package, and what it takes to write some.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace gptoss {

struct Error : std::runtime_error {  // one line: the thing, what was found, what was expected
  using std::runtime_error::runtime_error;
};

inline void expect(bool holds, const std::string& thing, const std::string& found, const std::string& expected) {
  if (!holds) throw Error(thing + ": found " + found + ", expected " + expected);
}

// A document by path: the window of the first cache layer is get<int64_t>("cache/0/window").
struct Json {
  using Size = size_t;  // of an array or an object
  std::string file;
  std::map<std::string, std::variant<std::nullptr_t, bool, int64_t, double, std::string, Size>> values;

  static Json parse(const std::string& text, const std::string& file);
  static Json read(const std::string& file);

  template <class T>
  bool is(const std::string& path) const {
    return values.count(path) != 0 && std::holds_alternative<T>(values.at(path));
  }
  template <class T>
  T get(const std::string& path) const {
    constexpr const char* kKinds[] = {"null", "a boolean", "an integer", "a number", "a string", "an array or object"};
    if (is<T>(path)) return std::get<T>(values.at(path));
    const std::string found = values.count(path) != 0 ? kKinds[values.at(path).index()] : "nothing";
    const std::string expected = kKinds[decltype(values)::mapped_type(T()).index()];
    throw Error(file + ": " + path + ": found " + found + ", expected " + expected);
  }
  template <class T>
  std::vector<T> list(const std::string& path) const {
    std::vector<T> elements;
    for (Size i = 0; i < get<Size>(path); ++i) elements.push_back(get<T>(path + "/" + std::to_string(i)));
    return elements;
  }
};

// Text of JSON values. A number is null where JSON has none; the members of an object are text already.
std::string json_string(const std::string& text);
std::string json_number(double value);
std::string json_object(std::initializer_list<std::pair<std::string, std::string>> members);

}  // namespace gptoss

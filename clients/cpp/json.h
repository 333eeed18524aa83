// A strict reader of JSON (RFC 8259) for the files of a package, and what it takes to write some.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace gptoss {

// What went wrong, in one line: the thing, what was found, what was expected.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void expect(bool holds, const std::string& thing, const std::string& found, const std::string& expected) {
  if (!holds) throw Error(thing + ": found " + found + ", expected " + expected);
}

// A document by path: the window of the first cache layer is get<int64_t>("cache/0/window").
struct Json {
  using Size = size_t;  // of an array or an object
  std::map<std::string, std::variant<std::nullptr_t, bool, int64_t, double, std::string, Size>> values;

  static Json parse(const std::string& text);
  static Json read(const std::string& file);

  bool has(const std::string& path) const { return values.count(path) != 0 && values.at(path).index() != 0; }

  template <class T>
  T get(const std::string& path) const {
    constexpr const char* kKinds[] = {"null", "a boolean", "an integer", "a number", "a string", "an array or object"};
    const auto entry = values.find(path);
    if (entry != values.end())
      if (const T* value = std::get_if<T>(&entry->second)) return *value;
    throw Error(path + ": found " + (entry == values.end() ? "nothing" : kKinds[entry->second.index()]) +
                ", expected " + kKinds[decltype(entry->second)(T()).index()]);
  }

  template <class T>
  std::vector<T> list(const std::string& path) const {
    std::vector<T> elements;
    for (Size i = 0; i < get<Size>(path); ++i) elements.push_back(get<T>(path + "/" + std::to_string(i)));
    return elements;
  }
};

// Text of JSON values; a number is null where JSON has none, and members are text already.
std::string json_string(const std::string& text);
std::string json_number(double value);
std::string json_object(std::initializer_list<std::pair<std::string, std::string>> members);

}  // namespace gptoss

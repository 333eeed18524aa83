// Prints a JSON value with the path of each part, as the tests of the parser read it.
#pragma once

#include <iostream>
#include <string>

#include "gptoss.h"

inline void print_json(const gptoss::Json& json, const std::string& path) {
  const std::string below = path.empty() ? "" : path + "/";
  const size_t kind = json.value.index();
  gptoss::JsonText text;
  if (const auto* truth = std::get_if<bool>(&json.value)) text = *truth;
  if (const auto* integer = std::get_if<int64_t>(&json.value)) text = *integer;
  if (const auto* real = std::get_if<double>(&json.value)) text = *real;
  if (const auto* string = std::get_if<std::string>(&json.value)) text = *string;
  if (const auto* array = std::get_if<gptoss::Json::Array>(&json.value)) text = array->size();
  if (const auto* object = std::get_if<gptoss::Json::Object>(&json.value)) text = object->size();
  std::cout << "[" << gptoss::json_string(path) << ", " << kind << ", " << text.text << "]\n";
  if (const auto* array = std::get_if<gptoss::Json::Array>(&json.value)) {
    for (size_t i = 0; i < array->size(); ++i) print_json((*array)[i], below + std::to_string(i));
  }
  if (const auto* object = std::get_if<gptoss::Json::Object>(&json.value)) {
    for (const auto& [key, value] : *object) print_json(value, below + key);
  }
}

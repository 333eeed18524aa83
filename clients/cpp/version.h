// Versions of ONNX Runtime, compared as numbers: 1.9 is older than 1.28.
#pragma once

#include <optional>
#include <string_view>
#include <utility>

namespace gptoss {

using Version = std::pair<int, int>;  // major and minor

// The version that a text such as 1.32 or 1.32.0 begins with; none where it is something else.
std::optional<Version> version_of(std::string_view text);

}  // namespace gptoss

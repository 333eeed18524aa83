#include "version.h"

#include <charconv>

namespace gptoss {

std::optional<Version> version_of(std::string_view text) {
  Version version;
  const char* end = text.data() + text.size();
  const auto [point, error] = std::from_chars(text.data(), end, version.first);
  if (error != std::errc() || point == end || *point != '.') return std::nullopt;
  const auto [rest, problem] = std::from_chars(point + 1, end, version.second);
  const bool is_whole = rest == end || *rest == '.' || *rest == '-';
  const bool holds = problem == std::errc() && is_whole && version >= Version(0, 0);
  return holds && version.second >= 0 ? std::optional(version) : std::nullopt;
}

}  // namespace gptoss

// Floats in memory of their own, which starts at a cache line.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace gptoss {

// Memory that vectors work in starts at a cache line: else every second load would touch two.
constexpr int64_t kLine = 16;  // floats
struct FreeLines {
  void operator()(float* memory) const {
    ::operator delete[](memory, std::align_val_t{kLine * sizeof(float)});
  }
};
using Lines = std::unique_ptr<float[], FreeLines>;

inline Lines new_lines(int64_t floats) {
  const auto bytes = static_cast<size_t>(floats) * sizeof(float);
  return Lines(
      static_cast<float*>(::operator new[](bytes, std::align_val_t{kLine * sizeof(float)})));
}

}  // namespace gptoss

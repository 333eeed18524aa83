// Memory aligned to a cache line, which is also a vector register's width; not initialized.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace gptoss {

class AlignedBytes {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedBytes() = default;
  explicit AlignedBytes(size_t count)
      : bytes_(static_cast<std::byte*>(::operator new(count, std::align_val_t{kAlignment}))) {}
  std::byte* data() const noexcept { return bytes_.get(); }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept {
      ::operator delete(bytes, std::align_val_t{kAlignment});
    }
  };
  std::unique_ptr<std::byte, Free> bytes_;
};

}  // namespace gptoss

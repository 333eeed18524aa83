// Files of a package, which may come from a stranger: regular files of a known size, in its folder.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace gptoss {

// What tells that a file has been changed or replaced.
struct FileState {
  dev_t device;
  ino_t inode;
  int64_t size;      // bytes
  int64_t mtime_ns;  // nanoseconds since 1970

  bool operator==(const FileState& other) const {
    return device == other.device && inode == other.inode && size == other.size &&
           mtime_ns == other.mtime_ns;
  }
};

// The state of what lies at a path; throws where there is nothing.
FileState state_of(const std::filesystem::path& path);

// A regular file, open for reading. A FIFO, a device or a folder is refused without waiting for it.
class RegularFile {
 public:
  explicit RegularFile(const std::filesystem::path& path);
  ~RegularFile();
  RegularFile(const RegularFile&) = delete;

  FileState state() const;
  // The next bytes, `size` of them or what is left.
  std::string read(size_t size);

  const std::filesystem::path path;

 private:
  int descriptor_;
};

// The bytes of a regular file of at most `limit` bytes.
std::string read_file(const std::filesystem::path& path, size_t limit);

// Throws unless `name` is the name of a file and no path; `where` says who gives it.
void expect_plain_name(const std::string& name, const std::string& where);

// The path of a file in a package folder. Throws unless it is a regular file that really lies in
// this folder: no link leads out of it. `name` is relative, and its parts are plain names.
std::filesystem::path file_in(const std::filesystem::path& folder,
                              const std::filesystem::path& name);

// Throws unless this is a regular file, or a link to one.
void expect_regular(const std::filesystem::path& path);

// Whether there is anything of this name, be it a broken link.
bool is_there(const std::filesystem::path& path);

}  // namespace gptoss

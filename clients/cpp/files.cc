#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "text.h"

namespace gptoss {

namespace fs = std::filesystem;

static std::string kind(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "something else";
}

static std::string reason_of(int error) {
  if (error == ENOENT) return "no such file";
  return std::string("none that opens (") + strerror(error) + ")";
}

static FileState state_from(const struct stat& status) {
  const int64_t mtime_ns = status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec;
  return {status.st_dev, status.st_ino, status.st_size, mtime_ns};
}

// What stat() says of a path; throws where there is nothing.
static struct stat status_of(const fs::path& path) {
  struct stat status;
  if (stat(path.c_str(), &status) == 0) return status;
  throw Error(path.string() + ": found " + reason_of(errno) + ", expected a regular file");
}

FileState state_of(const fs::path& path) { return state_from(status_of(path)); }

RegularFile::RegularFile(const fs::path& path_) : path(path_), descriptor_(-1) {
  // Looked at before it is opened: opening some devices does something.
  expect_regular(path);
  // Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
  descriptor_ = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor_ < 0) {
    throw Error(path.string() + ": found " + reason_of(errno) + ", expected a regular file");
  }
  struct stat status = {};
  if (fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode)) return;
  close(descriptor_);
  throw Error(path.string() + ": found " + kind(status.st_mode) + ", expected a regular file");
}

RegularFile::~RegularFile() { close(descriptor_); }

FileState RegularFile::state() const {
  struct stat status = {};
  expect(fstat(descriptor_, &status) == 0, path, "no state of it", "a file that can be read");
  return state_from(status);
}

std::string RegularFile::read(size_t size) {
  std::string bytes;
  while (bytes.size() < size) {
    // By parts: memory is asked for what is there, not for what is said to be.
    constexpr size_t kPart = 1 << 20;
    const size_t begin = bytes.size();
    bytes.resize(begin + std::min(size - begin, kPart));
    const ssize_t count = ::read(descriptor_, &bytes[begin], bytes.size() - begin);
    if (count < 0 && errno != EINTR) {
      throw Error(path.string() + ": found " + strerror(errno) + ", expected bytes to read");
    }
    bytes.resize(begin + std::max<ssize_t>(count, 0));
    if (count == 0) break;
  }
  return bytes;
}

std::string read_file(const fs::path& path, size_t limit) {
  RegularFile file(path);
  std::string bytes = file.read(limit + 1);
  expect(bytes.size() <= limit, path, "more than " + std::to_string(limit) + " bytes",
         "at most that many in such a file");
  return bytes;
}

void expect_plain_name(const std::string& name, const std::string& where) {
  const bool plain = name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
  expect(plain && !name.empty() && name != "." && name != "..", where, "'" + name + "'",
         "the name of a file in the package folder, without a path");
}

fs::path file_in(const fs::path& folder, const fs::path& name) {
  const fs::path path = folder / name;
  expect_regular(path);
  const fs::path inside = fs::canonical(folder);
  const fs::path real = fs::canonical(path);
  const auto [end, _] = std::mismatch(inside.begin(), inside.end(), real.begin(), real.end());
  expect(end == inside.end(), path, "a link to " + real.string(),
         "a file that lies in the package folder");
  return path;
}

void expect_regular(const fs::path& path) {
  const mode_t mode = status_of(path).st_mode;
  expect(S_ISREG(mode), path, kind(mode), "a regular file");
}

bool is_there(const fs::path& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

}  // namespace gptoss

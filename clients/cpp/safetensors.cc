// The format: https://huggingface.co/docs/safetensors. Eight bytes hold the size of the header, the
// lowest first; then comes the header, in JSON; then the data, to which offsets are relative.
#include "safetensors.h"

#include <algorithm>
#include <iterator>

#include "json.h"
#include "text.h"

namespace gptoss {

std::vector<ByteRange> tensors_of(RegularFile& file) {
  const int64_t file_size = file.state().size;
  const std::string prefix = file.read(8);
  uint64_t header_size = 0;
  for (size_t i = prefix.size(); i > 0; --i) {
    header_size = header_size << 8 | static_cast<unsigned char>(prefix[i - 1]);
  }
  const auto left = static_cast<uint64_t>(std::max<int64_t>(file_size - 8, 0));
  const bool fits = header_size > 0 && header_size <= std::min<uint64_t>(left, kJsonLimit);
  const std::string sizes =
      std::to_string(file_size) + " bytes and a header of " + std::to_string(header_size);
  expect(fits, file.path, sizes, "a safetensors file, header within the file and below 16 MB");

  const Json header = parse_json(file.read(header_size), file.path.string() + ": header");
  const JsonPlace place(header, file.path.string() + ": header");
  const int64_t data = 8 + static_cast<int64_t>(header_size);
  std::vector<ByteRange> ranges;
  for (const std::string& name : place.keys()) {
    if (name == "__metadata__") continue;
    const JsonPlace offsets = place.at(name).at("data_offsets");
    const std::vector<int64_t> ends = offsets.integers(0, file_size - data);
    expect(ends.size() == 2 && ends[0] <= ends[1], offsets.where, "other numbers",
           "two, the second not smaller");
    ranges.push_back({data + ends[0], ends[1] - ends[0]});
  }
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

bool lies_in_one(const std::vector<ByteRange>& tensors, const ByteRange& range) {
  const auto after =
      std::upper_bound(tensors.begin(), tensors.end(), ByteRange{range.offset, INT64_MAX});
  if (after == tensors.begin()) return false;
  const ByteRange& found = *std::prev(after);
  // in this order no sum can overflow
  const int64_t skipped = range.offset - found.offset;
  return skipped <= found.length && range.length <= found.length - skipped;
}

}  // namespace gptoss

// Where the tensors of a safetensors file lie, as its header says.
#pragma once

#include <vector>

#include "files.h"
#include "onnx_file.h"

namespace gptoss {

// The bytes of each tensor, counted from the begin of the file, in ascending order. Throws for a
// file that is cut off, or whose header is larger than 16 MB or contradicts itself.
std::vector<ByteRange> tensors_of(RegularFile& file);

// Whether some bytes are those of one tensor, or a part of them: q, k and v are parts where a
// checkpoint stores the rows of the three in one tensor. `tensors` are in ascending order.
bool lies_in_one(const std::vector<ByteRange>& tensors, const ByteRange& range);

}  // namespace gptoss

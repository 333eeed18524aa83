// Where the tensors of a safetensors file lie, as its header says.
#pragma once

#include <vector>

#include "files.h"
#include "onnx_file.h"

namespace gptoss {

// The bytes of each tensor, counted from the begin of the file, in ascending order. Throws for a
// file that is cut off, or whose header is larger than 16 MB or contradicts itself.
std::vector<ByteRange> tensors_of(RegularFile& file);

}  // namespace gptoss

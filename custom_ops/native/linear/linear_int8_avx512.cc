// LinearInt8 with AVX-512 that lacks VNNI.
#include "linear/linear_blocks.h"
#include "machine/vectors_avx512.h"

namespace gptoss {

LinearKernels linear_int8_avx512() {
  return kernels_of<Floats16, FloatProducts<Floats16>, Scaled<Floats16>>(TokenFormat::float32);
}

}  // namespace gptoss

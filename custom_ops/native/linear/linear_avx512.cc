// Linear with AVX-512.
#include "linear/linear_blocks.h"
#include "machine/vectors_avx512.h"

namespace gptoss {

LinearKernels linear_avx512(WeightType type) { return float_kernels<Floats16>(type); }

}  // namespace gptoss

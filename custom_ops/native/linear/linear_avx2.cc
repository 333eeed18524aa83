// Linear with AVX2, FMA and F16C.
#include "linear/linear_blocks.h"
#include "machine/vectors_avx2.h"

namespace gptoss {

LinearKernels linear_avx2(WeightType type) { return float_kernels<Floats8>(type); }

}  // namespace gptoss

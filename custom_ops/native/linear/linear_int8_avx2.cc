// LinearInt8 with AVX2 and FMA; in mode int8, many tokens in bytes.
#include "linear/linear_blocks.h"
#include "machine/vectors_avx2.h"

namespace gptoss {

LinearKernels linear_int8_avx2(Activations activations) {
  LinearKernels kernels =
      kernels_of<Floats8, FloatProducts<Floats8>, Scaled<Floats8>>(TokenFormat::float32);
  if (activations == Activations::int8) use_int8_panels_maddubs(kernels);
  return kernels;
}

}  // namespace gptoss

// LinearPacked with AVX-512.
#include "linear/linear_packed_avx512.h"

namespace gptoss {

PackedKernels linear_packed_avx512(bool rounded) {
  return packed_float_kernels<Floats16, Unpack512>(packed_floats_16(rounded));
}

}  // namespace gptoss

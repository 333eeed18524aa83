// The passes with AVX-512.
#include "sampling/sampling_passes.h"

namespace gptoss {

template <class Score>
BlockPasses<Score> passes_avx512() {
  return {weigh<Score>, keep<Score>};
}

template BlockPasses<float> passes_avx512();
template BlockPasses<double> passes_avx512();

}  // namespace gptoss

// The passes with AVX2.
#include "sampling/sampling_passes.h"

namespace gptoss {

template <class Score>
BlockPasses<Score> passes_avx2() {
  return {weigh<Score>, keep<Score>};
}

template BlockPasses<float> passes_avx2();
template BlockPasses<double> passes_avx2();

}  // namespace gptoss

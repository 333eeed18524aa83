#include "abi/self_check.h"

namespace gptoss {

void SelfCheck::compute(const Context& context) const {
  const Input<float> x = context.input<float>(0);
  if (x.shape.size() != 1) context.reject(0, "shape " + describe(x.shape), "rank 1 (n)");
  float* y = context.output<float>(0, x.shape);
  context.parallel_for(static_cast<size_t>(x.shape[0]),
                       [&](size_t i) noexcept { y[i] = 2.0f * x.data[i]; });
}

}  // namespace gptoss

#include "moe/moe_checks.h"

#include <cmath>
#include <string>

namespace gptoss {

void expect_shape(const Context& context, size_t index, const Shape& expected, const char* legend,
                  const MoEAttributes& moe) {
  const Shape found = context.shape(index);
  if (found == expected) return;
  context.reject(index, "shape " + describe(found),
                 "shape " + describe(expected) + " = " + moe.spelled(legend));
}

void expect_shape_if_there(const Context& context, size_t index, const Shape& expected,
                           const char* legend, const MoEAttributes& moe) {
  if (context.has(index)) expect_shape(context, index, expected, legend, moe);
}

void expect_rank(const Context& context, size_t index, const Shape& found, size_t rank,
                 const char* legend, const MoEAttributes& moe) {
  if (found.size() == rank) return;
  context.reject(index, "shape " + describe(found),
                 "rank " + std::to_string(rank) + " " + moe.spelled(legend));
}

void expect_experts(const Context& context, size_t index, const Shape& logits,
                    const MoEAttributes& moe) {
  if (logits[1] >= static_cast<int64_t>(moe.top_k)) return;
  context.reject(index, "shape " + describe(logits),
                 "(N, E) with at least top_k = " + std::to_string(moe.top_k) + " experts");
}

Routing route_checked(const Context& context, size_t index, const Input<float>& logits,
                      const MoEAttributes& moe) {
  const auto tokens = static_cast<size_t>(logits.shape[0]),
             experts = static_cast<size_t>(logits.shape[1]);
  for (size_t i = 0; i < tokens * experts; ++i) {
    if (!std::isnan(logits.data[i])) continue;
    context.reject(
        index,
        "NaN for token " + std::to_string(i / experts) + ", expert " + std::to_string(i % experts),
        "numbers");
  }
  return route(logits.data, tokens, experts, moe.top_k, moe.normalize);
}

}  // namespace gptoss

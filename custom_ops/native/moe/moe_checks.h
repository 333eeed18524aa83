// What every MoE operator checks before it reads a byte: shapes, and the router's logits.
#pragma once

#include "abi/context.h"
#include "moe/moe_attributes.h"
#include "moe/moe_routing.h"

namespace gptoss {

// The shape of input `index` must be `expected`, whose names are `legend`, for instance "(E, 2I,
// Hd/32, 16)".
void expect_shape(const Context& context, size_t index, const Shape& expected, const char* legend,
                  const MoEAttributes& moe);

// The same of an input that the node may leave out.
void expect_shape_if_there(const Context& context, size_t index, const Shape& expected,
                           const char* legend, const MoEAttributes& moe);

void expect_rank(const Context& context, size_t index, const Shape& found, size_t rank,
                 const char* legend, const MoEAttributes& moe);

// Router logits (N, E) must offer at least top_k experts.
void expect_experts(const Context& context, size_t index, const Shape& logits,
                    const MoEAttributes& moe);

// Routes the logits at input `index`; rejects NaN, which has no place in an order, with its token
// and expert.
Routing route_checked(const Context& context, size_t index, const Input<float>& logits,
                      const MoEAttributes& moe);

}  // namespace gptoss

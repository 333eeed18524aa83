// What every MoE operator checks before it reads a byte: attributes, shapes, and the router's logits.
#pragma once

#include "abi/context.h"
#include "moe/moe_experts.h"
#include "moe/moe_routing.h"
#include "abi/ort_abi.h"

namespace gptoss {

// Reads top_k, alpha and limit; throws Error that names `op` where one is missing or senseless.
MoEAttributes read_moe_attributes(const OrtApi& api, const OrtKernelInfo& info, const char* op);

// The shape of input `index` must be `expected`, whose names are `legend`, for instance "(E, 2I, Hd/32, 16)".
void expect_shape(const Context& context, size_t index, const Shape& expected, const char* legend);

void expect_rank(const Context& context, size_t index, const Shape& found, size_t rank, const char* legend);

// Router logits (N, E) must offer at least top_k experts.
void expect_experts(const Context& context, size_t index, const Shape& logits, const MoEAttributes& moe);

// Routes the logits at input `index`; rejects NaN, which has no place in an order, with its token and expert.
Routing route_checked(const Context& context, size_t index, const Input<float>& logits, const MoEAttributes& moe);

}  // namespace gptoss

// What SinkAttention refuses: everything that would read or write outside its tensors, or overwrite
// a cached token that one of its own queries still sees.
#include <algorithm>
#include <cmath>
#include <string>

#include "abi/node_attributes.h"
#include "attention/sink_attention.h"

namespace gptoss {
namespace {

constexpr size_t kQuery = 0, kKey = 1, kValue = 2, kPastKey = 3, kPastValue = 4, kPastLengths = 5,
                 kNewLengths = 6, kSinks = 7, kCos = 8, kSin = 9, kAlibiSlopes = 10,
                 kDistanceBias = 11, kSinkCos = 12, kSinkSin = 13;

// Positions stay far from the end of int64, so that sums of them cannot overflow.
constexpr int64_t kMaxPosition = int64_t{1} << 62;

int64_t in_range(const NodeAttributes& node, const char* name, int64_t least) {
  const int64_t value = node.integer(name);
  constexpr int64_t kMost = int64_t{1} << 31;
  if (value < least || value > kMost) {
    node.reject(name, std::to_string(value),
                std::to_string(least) + " to " + std::to_string(kMost));
  }
  return value;
}

void expect_shape(const Context& context, size_t index, const Shape& found, const Shape& expected,
                  const char* legend) {
  if (found == expected) return;
  context.reject(index, "shape " + describe(found), describe(expected) + " = " + legend);
}

void check_lengths(const Context& context, const int64_t* past, const int64_t* fresh, int64_t batch,
                   int64_t columns, int64_t capacity, int64_t window) {
  for (int64_t row = 0; row < batch; ++row) {
    const std::string where = " in row " + std::to_string(row);
    if (past[row] < 0 || past[row] > kMaxPosition) {
      context.reject(kPastLengths, std::to_string(past[row]) + where, "0 to 2^62");
    }
    if (fresh[row] < 0 || fresh[row] > columns) {
      context.reject(kNewLengths, std::to_string(fresh[row]) + where,
                     "0 to " + std::to_string(columns) + ", the tokens a row of query");
    }
    int64_t needed = past[row] + columns;
    if (window > 0 && needed > window + columns - 1) needed = window + columns - 1;
    if (needed > capacity) {
      context.reject(
          kPastLengths,
          std::to_string(past[row]) + " cached tokens" + where + ", which with " +
              std::to_string(columns) + " new ones need " + std::to_string(needed) +
              " slots (window " + std::to_string(window) + ")",
          "a need of at most " + std::to_string(capacity) + ", the capacity of past_key");
    }
  }
}

}  // namespace

SinkAttentionAttributes SinkAttentionAttributes::read(const OrtApi& api,
                                                      const OrtKernelInfo& info) {
  const NodeAttributes node(api, info, "SinkAttention");
  const SinkAttentionAttributes found{in_range(node, "num_heads", 1),
                                      in_range(node, "kv_num_heads", 1),
                                      node.number("scale"),
                                      in_range(node, "window", 0),
                                      node.flag("interleaved", false),
                                      node.integer("sink_tokens", 0),
                                      node.number("sink_bias", 0.0f)};
  if (found.num_heads % found.kv_num_heads != 0) {
    node.reject("num_heads", std::to_string(found.num_heads),
                "a multiple of kv_num_heads = " + std::to_string(found.kv_num_heads));
  }
  if (!std::isfinite(found.scale))
    node.reject("scale", std::to_string(found.scale), "a finite number");
  if (found.sink_tokens < 0 || (found.sink_tokens > 0 && found.sink_tokens >= found.window)) {
    node.reject("sink_tokens", std::to_string(found.sink_tokens),
                "0, or less than window = " + std::to_string(found.window));
  }
  if (!std::isfinite(found.sink_bias) || (found.sink_bias != 0.0f && found.sink_tokens == 0)) {
    node.reject("sink_bias", std::to_string(found.sink_bias),
                "a finite number, 0 without sink_tokens");
  }
  return found;
}

template <class T>
SinkAttentionCall<T> SinkAttentionCall<T>::check(const Context& context,
                                                 const SinkAttentionAttributes& attributes) {
  const Input<float> query = context.input<float>(kQuery);
  const Input<T> past_key = context.input<T>(kPastKey);
  if (query.shape.size() != 3)
    context.reject(kQuery, "shape " + describe(query.shape), "rank 3 (B, S, H·D)");
  if (past_key.shape.size() != 4)
    context.reject(kPastKey, "shape " + describe(past_key.shape), "rank 4 (B, K, C, D)");
  const int64_t batch = query.shape[0], columns = query.shape[1];
  const int64_t heads = attributes.num_heads, kv_heads = attributes.kv_num_heads;
  const int64_t capacity = past_key.shape[2], head_dim = past_key.shape[3];
  if (head_dim < 2 || head_dim % 2 != 0 || head_dim > query.shape[2]) {
    context.reject(kPastKey,
                   "head dim " + std::to_string(head_dim) + " in shape " + describe(past_key.shape),
                   "an even number, at least 2 and at most the last dimension of query");
  }
  // head_dim is a tensor's dimension and heads at most 2^31: the products below fit.
  if (head_dim > kMaxPosition / heads)
    context.reject(kPastKey, "shape " + describe(past_key.shape), "a smaller head dim");
  expect_shape(context, kQuery, query.shape, {batch, columns, heads * head_dim}, "(B, S, H·D)");
  expect_shape(context, kPastKey, past_key.shape, {batch, kv_heads, capacity, head_dim},
               "(B, K, C, D)");

  const auto floats = [&](size_t index, const Shape& expected, const char* legend) {
    const Input<float> input = context.input<float>(index);
    expect_shape(context, index, input.shape, expected, legend);
    return input.data;
  };
  const auto lengths = [&](size_t index) {
    const Input<int64_t> input = context.input<int64_t>(index);
    expect_shape(context, index, input.shape, {batch}, "(B)");
    return input.data;
  };
  const Input<T> past_value = context.input<T>(kPastValue);
  expect_shape(context, kPastValue, past_value.shape, past_key.shape, "the shape of past_key");
  SinkAttentionCall call{};
  call.query = query.data;
  call.key = floats(kKey, {batch, columns, kv_heads * head_dim}, "(B, S, K·D)");
  call.value = floats(kValue, {batch, columns, kv_heads * head_dim}, "(B, S, K·D)");
  call.past_key = past_key.data;
  call.past_value = past_value.data;
  call.past_lengths = lengths(kPastLengths);
  call.new_lengths = lengths(kNewLengths);
  const auto by_head = [&](size_t index) {
    return context.has(index) ? floats(index, {heads}, "(H)") : nullptr;
  };
  call.sinks = by_head(kSinks);
  call.alibi_slopes = by_head(kAlibiSlopes);
  if (context.has(kDistanceBias)) {
    const Shape shape = context.shape(kDistanceBias);
    call.distances = shape.size() == 2 ? std::max<int64_t>(1, shape[1]) : 1;
    call.distance_bias = floats(kDistanceBias, {heads, call.distances}, "(H, N) with N at least 1");
  }
  if (context.has(kCos)) {
    const Shape shape = context.shape(kCos);
    call.pairs = std::clamp<int64_t>(shape.size() == 3 ? shape[2] : 1, 1, head_dim / 2);
  }
  const std::string legend = "(B, S, R/2) with R/2 from 1 to D/2 = " + std::to_string(head_dim / 2);
  const auto angles = [&](size_t cos, size_t sin, bool wanted, const char* when) {
    for (const size_t index : {cos, sin}) {
      const bool found = context.has(index);
      if (found != wanted) {
        context.reject(index, found ? "a tensor" : "no tensor",
                       std::string("one ") + when + " and only then");
      }
    }
    if (!wanted) return Angles{};
    const Shape shape{batch, columns, call.pairs};
    return Angles{floats(cos, shape, legend.c_str()), floats(sin, shape, legend.c_str())};
  };
  call.angles = angles(kCos, kSin, context.has(kCos), "with cos");
  call.sink_angles = angles(kSinkCos, kSinkSin, context.has(kCos) && attributes.sink_tokens > 0,
                            "with cos and sink_tokens");
  call.batch = batch;
  call.columns = columns;
  call.capacity = capacity;
  call.head_dim = head_dim;
  check_lengths(context, call.past_lengths, call.new_lengths, batch, columns, capacity,
                attributes.window);
  return call;
}

template struct SinkAttentionCall<float>;
template struct SinkAttentionCall<Float16>;
template struct SinkAttentionCall<BFloat16>;

}  // namespace gptoss

# mypy: ignore-errors
# onnxscript's `@script` rewrites these functions at import; a type checker sees Python that never
# runs.
"""Portable bodies of `ai.gptoss::SinkAttention`: one for layers like gpt-oss's, and one for all
others, whose parts (attention_parts.py) are chosen by what a node uses.

Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, G = H/K, D head dim.
"""

from onnxscript import FLOAT, INT64, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION
from gptoss_onnx.custom_ops.attention_parts import (
    HeadProducts,
    HeldPositions,
    KeyProducts,
    KeyProductsWithKept,
    NoSinkLogits,
    NotRotated,
    Rotated,
    SameScores,
    SinkLogits,
    SlopedScores,
    SplitHeads,
    TabledScores,
    WrittenCache,
    WrittenCacheWithKept,
)

gptoss = Opset(DOMAIN, DOMAIN_VERSION)


def chosen(use):
    """Return the body of a node and the parts that it calls, callees first: name → function."""
    if _is_plain(use):
        return {"SinkAttention": SinkAttention}
    keeps = use.attribute("sink_tokens") > 0
    return {
        "SplitHeads": SplitHeads,
        "Rotated": Rotated if use.has("cos") else NotRotated,
        "HeldPositions": HeldPositions,
        "WrittenCache": WrittenCacheWithKept if keeps else WrittenCache,
        "HeadProducts": HeadProducts,
        "KeyProducts": KeyProductsWithKept if keeps else KeyProducts,
        "SlopedScores": SlopedScores if use.has("alibi_slopes") else SameScores,
        "TabledScores": TabledScores if use.has("distance_bias") else SameScores,
        "SinkLogits": SinkLogits if use.has("sinks") else NoSinkLogits,
        "SinkAttention": AnyAttention,
    }


def _is_plain(use) -> bool:
    """Say whether a node uses sinks, half-split angles of the whole head, and nothing else."""
    extra = ("alibi_slopes", "distance_bias", "sink_cos", "sink_sin")
    if any(use.has(name) for name in extra) or not (use.has("sinks") and use.has("cos")):
        return False
    cos, cache = use.shapes["cos"], use.shapes["past_key"]
    widths = (cos and cos[2], cache and cache[3])
    narrow = None not in widths and 2 * widths[0] != widths[1]
    return not (narrow or use.attribute("interleaved") or use.attribute("sink_tokens"))


@script(gptoss, default_opset=op)
def SinkAttention(  # noqa: N802
    query: FLOAT,
    key: FLOAT,
    value: FLOAT,
    past_key,
    past_value,
    past_lengths: INT64,
    new_lengths: INT64,
    sinks: FLOAT,
    cos: FLOAT,
    sin: FLOAT,
    num_heads: int,
    kv_num_heads: int,
    scale: float,
    window: int,
):
    """Rotate, write the ring, attend over the cache alone; see the PyTorch definition for the slot
    arithmetic.
    """
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    rest = op.Constant(value_ints=[-1])
    kv_heads = op.Reshape(op.Constant(value_int=kv_num_heads), one)
    new = op.Shape(query, start=1, end=2)
    capacity = op.Shape(past_key, start=2, end=3)
    head_dim = op.Shape(past_key, start=3, end=4)

    rotated_query = op.RotaryEmbedding(query, cos, sin, num_heads=num_heads)
    rotated_key = op.RotaryEmbedding(key, cos, sin, num_heads=kv_num_heads)
    kv_shape = op.Concat(zero, zero, kv_heads, rest, axis=0)
    keys = op.Transpose(op.Reshape(rotated_key, kv_shape), perm=[0, 2, 1, 3])  # (B, K, S, D)
    values = op.Transpose(op.Reshape(value, kv_shape), perm=[0, 2, 1, 3])
    first_slot = op.Mod(past_lengths, capacity)
    present_key = op.TensorScatter(
        past_key, op.CastLike(keys, past_key), first_slot, axis=2, mode="circular"
    )
    present_value = op.TensorScatter(
        past_value, op.CastLike(values, past_value), first_slot, axis=2, mode="circular"
    )

    start = op.Constant(value_int=0)
    stride = op.Constant(value_int=1)
    last = op.Unsqueeze(op.Sub(op.Add(past_lengths, new_lengths), one), one)  # (B, 1)
    slots = op.Unsqueeze(op.Range(start, op.Squeeze(capacity), stride), zero)  # (1, C)
    # (B, 1, C); Mod floors
    held = op.Unsqueeze(op.Sub(last, op.Mod(op.Sub(last, slots), capacity)), one)
    offsets = op.Unsqueeze(op.Range(start, op.Squeeze(new), stride), zero)  # (1, S)
    positions = op.Unsqueeze(
        op.Add(op.Unsqueeze(past_lengths, one), offsets), op.Constant(value_ints=[2])
    )
    distance = op.Sub(positions, held)  # (B, S, C)
    width = op.Constant(value_int=window)
    unbounded = op.Constant(value_int=9223372036854775807)
    span = op.Where(op.Greater(width, start), width, unbounded)
    causal = op.And(op.GreaterOrEqual(held, start), op.GreaterOrEqual(distance, start))
    visible = op.Unsqueeze(op.And(causal, op.Less(distance, span)), op.Constant(value_ints=[1, 2]))

    # The G query heads of one kv head share one matrix product, so no key is repeated.
    # (B, S, K, G, D)
    split = op.Reshape(rotated_query, op.Concat(zero, zero, kv_heads, rest, head_dim, axis=0))
    grouped = op.Transpose(split, perm=[0, 2, 3, 1, 4])  # (B, K, G, S, D)
    flat = op.Reshape(grouped, op.Concat(zero, zero, rest, head_dim, axis=0))  # (B, K, G·S, D)
    keys_read = op.Transpose(op.Cast(present_key, to=1), perm=[0, 1, 3, 2])
    products = op.MatMul(op.Mul(flat, op.Constant(value_float=scale)), keys_read)  # (B, K, G·S, C)
    # (B, K, G, S, C)
    scores = op.Reshape(products, op.Concat(zero, zero, rest, new, capacity, axis=0))
    scores = op.Where(visible, scores, op.Constant(value_float=-1e30))
    sink = op.Reshape(sinks, op.Concat(one, kv_heads, rest, one, one, axis=0))  # (1, K, G, 1, 1)
    peak = op.Max(op.ReduceMax(scores, rest, keepdims=1), sink)
    weights = op.Exp(op.Sub(scores, peak))
    total = op.Add(op.ReduceSum(weights, rest, keepdims=1), op.Exp(op.Sub(sink, peak)))
    read = op.MatMul(
        op.Reshape(weights, op.Concat(zero, zero, rest, capacity, axis=0)),
        op.Cast(present_value, to=1),
    )  # (B, K, G·S, D)
    attended = op.Div(op.Reshape(read, op.Shape(grouped)), total)
    output = op.Reshape(op.Transpose(attended, perm=[0, 3, 1, 2, 4]), op.Shape(query))
    return output, present_key, present_value


@script(gptoss, default_opset=op)
def AnyAttention(  # noqa: N802
    query: FLOAT,
    key: FLOAT,
    value: FLOAT,
    past_key,
    past_value,
    past_lengths: INT64,
    new_lengths: INT64,
    sinks: FLOAT,
    cos: FLOAT,
    sin: FLOAT,
    alibi_slopes: FLOAT,
    distance_bias: FLOAT,
    sink_cos: FLOAT,
    sink_sin: FLOAT,
    num_heads: int,
    kv_num_heads: int,
    scale: float,
    window: int,
    interleaved: int = 0,
    sink_tokens: int = 0,
    sink_bias: float = 0.0,
):
    """Do what SinkAttention does, by parts that `chosen` fits to the node."""
    start, stride = op.Constant(value_int=0), op.Constant(value_int=1)
    zero, one, rest = (
        op.Constant(value_ints=[0]),
        op.Constant(value_ints=[1]),
        op.Constant(value_ints=[-1]),
    )
    new, capacity = op.Shape(query, start=1, end=2), op.Shape(past_key, start=2, end=3)
    heads = SplitHeads(query, num_heads=num_heads)
    keys = SplitHeads(key, num_heads=kv_num_heads)
    keys = Rotated(keys, cos, sin, interleaved=interleaved)
    values = SplitHeads(value, num_heads=kv_num_heads)
    present_key = WrittenCache(past_key, keys, past_lengths, sink_tokens=sink_tokens)
    present_value = WrittenCache(past_value, values, past_lengths, sink_tokens=sink_tokens)

    first = op.Unsqueeze(past_lengths, one)  # (B, 1)
    last = op.Sub(op.Add(first, op.Unsqueeze(new_lengths, one)), one)
    # (B, 1, C)
    held = op.Unsqueeze(HeldPositions(last, capacity, sink_tokens=sink_tokens), one)
    positions = op.Add(first, op.Range(start, op.Squeeze(new), stride))
    positions = op.Unsqueeze(positions, rest)  # (B, S, 1)
    distance = op.Sub(positions, held)  # (B, S, C)
    kept = op.Constant(value_int=sink_tokens)
    is_kept = op.Less(held, kept)
    width = op.Constant(value_int=window)
    unbounded = op.Constant(value_int=9223372036854775807)
    span = op.Where(op.Greater(width, start), width, unbounded)
    causal = op.And(op.GreaterOrEqual(held, start), op.GreaterOrEqual(distance, start))
    near = op.Or(is_kept, op.Less(distance, op.Sub(span, kept)))
    visible = op.Unsqueeze(op.And(causal, near), op.Constant(value_ints=[1, 2]))
    full = op.Where(is_kept, op.Min(positions, op.Sub(span, stride)), positions)
    biased = op.Sub(full, held)

    products = KeyProducts(
        heads,
        op.Cast(present_key, to=1),
        cos,
        sin,
        sink_cos,
        sink_sin,
        scale=scale,
        interleaved=interleaved,
        sink_tokens=sink_tokens,
        sink_bias=sink_bias,
    )
    # (B, K, G, S, C)
    scores = op.Reshape(products, op.Concat(zero, zero, rest, new, capacity, axis=0))
    scores = TabledScores(SlopedScores(scores, biased, alibi_slopes), biased, distance_bias)
    least = op.Constant(value_float=-1e30)
    scores = op.Where(visible, scores, least)
    sink = SinkLogits(sinks, kv_num_heads=kv_num_heads)
    peak = op.Max(op.ReduceMax(scores, rest, keepdims=1), sink, least)
    nothing = op.Constant(value_float=0.0)
    weights = op.Where(visible, op.Exp(op.Sub(scores, peak)), nothing)
    total = op.Add(op.ReduceSum(weights, rest, keepdims=1), op.Exp(op.Sub(sink, peak)))
    # a query that sees nothing gives zeros
    total = op.Where(op.Equal(total, nothing), op.Constant(value_float=1.0), total)
    read = op.MatMul(
        op.Reshape(weights, op.Concat(zero, zero, rest, capacity, axis=0)),
        op.Cast(present_value, to=1),
    )  # (B, K, G·S, D)
    head_dim = op.Shape(past_key, start=3, end=4)
    by_head = op.Concat(zero, zero, rest, new, head_dim, axis=0)
    attended = op.Div(op.Reshape(read, by_head), total)  # (B, K, G, S, D)
    output = op.Reshape(op.Transpose(attended, perm=[0, 3, 1, 2, 4]), op.Shape(query))
    return output, present_key, present_value

# mypy: ignore-errors
# onnxscript's `@script` rewrites these functions at import; a type checker sees Python that never
# runs.
"""Parts of SinkAttention's portable body, ONNX functions in standard ops: what attention_bodies.py
calls, in variants for what a node uses.

Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, G = H/K, D head dim,
    R rotary width, N distances. cache_slots.py has the slot arithmetic.
"""

from onnxscript import FLOAT, INT64, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION

gptoss = Opset(DOMAIN, DOMAIN_VERSION)


@script(gptoss, default_opset=op)
def SplitHeads(x: FLOAT, num_heads: int) -> FLOAT:  # noqa: N802
    """Split (B, S, n·D) into heads (B, n, S, D)."""
    count = op.Reshape(op.Constant(value_int=num_heads), op.Constant(value_ints=[1]))
    kept, rest = op.Constant(value_ints=[0, 0]), op.Constant(value_ints=[-1])
    return op.Transpose(op.Reshape(x, op.Concat(kept, count, rest, axis=0)), perm=[0, 2, 1, 3])


@script(gptoss, default_opset=op)
def Rotated(heads: FLOAT, cos: FLOAT, sin: FLOAT, interleaved: int) -> FLOAT:  # noqa: N802
    """Rotate the first R dimensions of heads (B, n, S, D)."""
    start, axis = op.Constant(value_ints=[0]), op.Constant(value_ints=[3])
    width = op.Mul(op.Shape(cos, start=2, end=3), op.Constant(value_ints=[2]))
    turned = op.RotaryEmbedding(
        op.Slice(heads, start, width, axis), cos, sin, interleaved=interleaved
    )
    rest = op.Slice(heads, width, op.Shape(heads, start=3, end=4), axis)
    return op.Concat(turned, rest, axis=3)


@script(gptoss, default_opset=op)
def NotRotated(heads: FLOAT, cos: FLOAT, sin: FLOAT, interleaved: int) -> FLOAT:  # noqa: N802
    """Give back heads that have no angles."""
    return op.Identity(heads)


@script(gptoss, default_opset=op)
def HeldPositions(last: INT64, capacity: INT64, sink_tokens: int) -> INT64:  # noqa: N802
    """Return the position in each slot, (B, C), −1 for none, from each row's last one (B, 1)."""
    none = op.Constant(value_int=-1)
    kept = op.Constant(value_int=sink_tokens)
    step = op.Constant(value_int=1)
    slots = op.Range(op.Constant(value_int=0), op.Squeeze(capacity), step)  # (C)
    ring = op.Sub(last, op.Mod(op.Sub(last, slots), op.Max(op.Sub(capacity, kept), step)))
    ring = op.Where(op.Less(ring, kept), none, ring)
    held = op.Where(op.Less(slots, kept), slots, ring)
    return op.Where(op.Greater(held, last), none, held)


@script(gptoss, default_opset=op)
def WrittenCache(past, new: FLOAT, past_lengths: INT64, sink_tokens: int):  # noqa: N802
    """Return the ring (B, K, C, D) with the new rows (B, K, S, D) in their slots."""
    first = op.Mod(past_lengths, op.Shape(past, start=2, end=3))
    return op.TensorScatter(past, op.CastLike(new, past), first, axis=2, mode="circular")


@script(gptoss, default_opset=op)
def WrittenCacheWithKept(past, new: FLOAT, past_lengths: INT64, sink_tokens: int):  # noqa: N802
    """The same where the first tokens stay: each slot takes a new row or the one that it has."""
    one = op.Constant(value_ints=[1])
    capacity = op.Shape(past, start=2, end=3)
    before = op.Unsqueeze(past_lengths, one)  # (B, 1)
    last = op.Sub(op.Add(before, op.Shape(new, start=2, end=3)), one)
    held = HeldPositions(last, capacity, sink_tokens=sink_tokens)
    stride = op.Constant(value_int=1)
    slots = op.Range(op.Constant(value_int=0), op.Squeeze(capacity), stride)
    source = op.Where(op.Less(held, before), slots, op.Add(op.Sub(held, before), capacity))
    index = op.Unsqueeze(source, op.Constant(value_ints=[1, 3]))  # (B, 1, C, 1)
    index = op.Expand(index, op.Concat(one, op.Shape(past, start=1, end=2), one, one, axis=0))
    both = op.Concat(past, op.CastLike(new, past), axis=2)  # (B, K, C + S, D)
    return op.GatherND(both, index, batch_dims=2)


@script(gptoss, default_opset=op)
def HeadProducts(  # noqa: N802
    heads: FLOAT,
    keys: FLOAT,
    cos: FLOAT,
    sin: FLOAT,
    scale: float,
    interleaved: int,
) -> FLOAT:
    """Multiply queries (B, H, S, D) with keys (B, K, C, D) to (B, K, G·S, C): the G query heads of
    one kv head share one matrix product, so no key is repeated.
    """
    rotated = Rotated(heads, cos, sin, interleaved=interleaved)
    zero, rest = op.Constant(value_ints=[0]), op.Constant(value_ints=[-1])
    kv_heads, head_dim = op.Shape(keys, start=1, end=2), op.Shape(keys, start=3, end=4)
    flat = op.Reshape(rotated, op.Concat(zero, kv_heads, rest, head_dim, axis=0))
    scaled = op.Mul(flat, op.Constant(value_float=scale))  # (B, K, G·S, D)
    return op.MatMul(scaled, op.Transpose(keys, perm=[0, 1, 3, 2]))


@script(gptoss, default_opset=op)
def KeyProducts(  # noqa: N802
    heads: FLOAT,
    keys: FLOAT,
    cos: FLOAT,
    sin: FLOAT,
    sink_cos: FLOAT,
    sink_sin: FLOAT,
    scale: float,
    interleaved: int,
    sink_tokens: int,
    sink_bias: float,
) -> FLOAT:
    """Return the products of all queries and keys, (B, K, G·S, C)."""
    return HeadProducts(heads, keys, cos, sin, scale=scale, interleaved=interleaved)


@script(gptoss, default_opset=op)
def KeyProductsWithKept(  # noqa: N802
    heads: FLOAT,
    keys: FLOAT,
    cos: FLOAT,
    sin: FLOAT,
    sink_cos: FLOAT,
    sink_sin: FLOAT,
    scale: float,
    interleaved: int,
    sink_tokens: int,
    sink_bias: float,
) -> FLOAT:
    """The same where the keys of the first slots meet queries of other angles and gain a bias."""
    zero, axis = op.Constant(value_ints=[0]), op.Constant(value_ints=[2])
    kept = op.Reshape(op.Constant(value_int=sink_tokens), op.Constant(value_ints=[1]))
    first_keys = op.Slice(keys, zero, kept, axis)
    other_keys = op.Slice(keys, kept, op.Shape(keys, start=2, end=3), axis)
    first = HeadProducts(
        heads, first_keys, sink_cos, sink_sin, scale=scale, interleaved=interleaved
    )
    others = HeadProducts(heads, other_keys, cos, sin, scale=scale, interleaved=interleaved)
    return op.Concat(op.Add(first, op.Constant(value_float=sink_bias)), others, axis=3)


@script(gptoss, default_opset=op)
def SlopedScores(scores: FLOAT, distance: INT64, slopes: FLOAT) -> FLOAT:  # noqa: N802
    """Take slope · distance (B, S, C) off scores (B, K, G, S, C)."""
    by_head = op.Reshape(slopes, op.Constant(value_ints=[1, -1, 1, 1]))  # (1, H, 1, 1)
    far = op.Cast(op.Unsqueeze(distance, op.Constant(value_ints=[1])), to=1)
    return op.Sub(scores, op.Reshape(op.Mul(by_head, far), op.Shape(scores)))


@script(gptoss, default_opset=op)
def TabledScores(scores: FLOAT, distance: INT64, table: FLOAT) -> FLOAT:  # noqa: N802
    """Add the column of each distance (B, S, C) to scores (B, K, G, S, C)."""
    zero, one = op.Constant(value_int=0), op.Constant(value_ints=[1])
    last = op.Sub(op.Shape(table, start=1, end=2), one)
    bias = op.Gather(table, op.Max(op.Min(distance, last), zero), axis=1)  # (H, B, S, C)
    by_row = op.Transpose(bias, perm=[1, 0, 2, 3])
    return op.Add(scores, op.Reshape(by_row, op.Shape(scores)))


@script(gptoss, default_opset=op)
def SameScores(scores: FLOAT, distance: INT64, bias: FLOAT) -> FLOAT:  # noqa: N802
    """Give back scores that have no bias."""
    return op.Identity(scores)


@script(gptoss, default_opset=op)
def SinkLogits(sinks: FLOAT, kv_num_heads: int) -> FLOAT:  # noqa: N802
    """Return a logit for each head, (1, K, G, 1, 1)."""
    one, rest = op.Constant(value_ints=[1]), op.Constant(value_ints=[-1])
    kv_heads = op.Reshape(op.Constant(value_int=kv_num_heads), one)
    return op.Reshape(sinks, op.Concat(one, kv_heads, rest, one, one, axis=0))


@script(gptoss, default_opset=op)
def NoSinkLogits(sinks: FLOAT, kv_num_heads: int) -> FLOAT:  # noqa: N802
    """Return a logit that takes no share of any head."""
    return op.Constant(value_float=float("-inf"))

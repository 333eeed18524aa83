"""PyTorch definition of `ai.gptoss::SinkAttention`: RoPE, cache write, then attention with sinks
over the cache.

Formula: openai/gpt-oss `gpt_oss/torch/model.py`, `sdpa`: a learned logit per head joins the softmax
    and takes
probability mass, but no value.

Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, G = H/K, D head dim.

Cache: the token at absolute position p lives in slot p mod C. The new keys and values are written
    first, padding
included; attention then reads the cache alone. Row b holds positions up to `last` = past + new − 1,
so slot s holds position last − ((last − s) mod C); negative means nothing was written there.
Padding lands in slots whose positions no query of this or a later call may see, as long as C keeps
the bounds `check_capacity` states.
"""

import math

import torch

from gptoss_onnx.custom_ops.checks import (
    expect_attribute,
    expect_multiple,
    expect_rank,
    expect_shape,
)
from gptoss_onnx.errors import InputError

OP = "SinkAttention"
LONGEST = 1 << 62  # positions stay far from the end of int64


@torch.library.custom_op("gptoss::sink_attention", mutates_args=())
def sink_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    past_key: torch.Tensor,
    past_value: torch.Tensor,
    past_lengths: torch.Tensor,
    new_lengths: torch.Tensor,
    sinks: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    num_heads: int,
    kv_num_heads: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend S new tokens a row over the cache, with a sink logit per head.

    Args:
        query: (B, S, H·D), floating; rows are right-padded.
        key: (B, S, K·D).
        value: (B, S, K·D).
        past_key: (B, K, C, D), the cache dtype; rotated keys.
        past_value: (B, K, C, D).
        past_lengths: int64 (B), tokens already cached.
        new_lengths: int64 (B), real tokens of this call, 0 ≤ new ≤ S.
        sinks: (H), added to the softmax denominator as exp(sink).
        cos: (B, S, D/2), of each token's angles, times the YaRN attention factor.
        sin: (B, S, D/2).
        num_heads: H.
        kv_num_heads: K.
        scale: factor of the scores, D^-½.
        window: keys a query sees, itself included; 0 means all.

    Returns:
        Output (B, S, H·D) in the dtype of `query` (padding rows are finite and mean nothing),
        present_key and present_value (B, K, C, D) in the cache dtype.

    Raises:
        InputError: an attribute makes no sense, shapes or lengths do not fit, or the cache is too
            small for this call (see `check_capacity`).
    """
    _check_attributes(num_heads, kv_num_heads, scale, window)
    _check_shapes(query, key, value, past_key, past_value, sinks, cos, sin, num_heads, kv_num_heads)
    _check_lengths(past_lengths, new_lengths, query)
    check_capacity(past_key.shape[2], past_lengths, query.shape[1], window)
    batch, new, _ = query.shape
    head_dim = past_key.shape[3]
    compute = torch.promote_types(query.dtype, torch.float32)
    cos, sin = cos.to(compute).unsqueeze(1), sin.to(compute).unsqueeze(1)  # (B, 1, S, D/2)
    queries = _rotate(_split_heads(query.to(compute), num_heads), cos, sin)
    keys = _rotate(_split_heads(key.to(compute), kv_num_heads), cos, sin)
    values = _split_heads(value.to(compute), kv_num_heads)

    positions = past_lengths.unsqueeze(1) + torch.arange(new, device=query.device)  # (B, S)
    present_key = _write(past_key, keys, positions)
    present_value = _write(past_value, values, positions)

    visible = visible_slots(positions, past_lengths + new_lengths - 1, past_key.shape[2], window)
    grouped = queries.view(batch, kv_num_heads, num_heads // kv_num_heads, new, head_dim)
    # (B, K, G, S, C)
    scores = scale * grouped @ present_key.to(compute).transpose(2, 3).unsqueeze(2)
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    sink = sinks.to(compute).view(1, kv_num_heads, -1, 1, 1).expand(batch, -1, -1, new, 1)
    probabilities = torch.cat((scores, sink), dim=-1).softmax(dim=-1)[..., :-1]
    output = probabilities @ present_value.to(compute).unsqueeze(2)  # (B, K, G, S, D)
    output = output.permute(0, 3, 1, 2, 4).reshape(batch, new, -1)  # (B, S, H·D)
    return output.to(query.dtype), present_key, present_value


@sink_attention.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    past_key: torch.Tensor,
    past_value: torch.Tensor,
    *_: object,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty_like(past_key), torch.empty_like(past_value)


def _check_attributes(num_heads: int, kv_num_heads: int, scale: float, window: int) -> None:
    expect_attribute(OP, "num_heads", num_heads, num_heads >= 1, "at least 1")
    expect_attribute(OP, "kv_num_heads", kv_num_heads, kv_num_heads >= 1, "at least 1")
    multiple = f"a multiple of kv_num_heads = {kv_num_heads}"
    expect_attribute(OP, "num_heads", num_heads, num_heads % kv_num_heads == 0, multiple)
    expect_attribute(OP, "scale", scale, math.isfinite(scale), "a finite number")
    expect_attribute(OP, "window", window, window >= 0, "0 (all) or more")


def _check_shapes(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    past_key: torch.Tensor,
    past_value: torch.Tensor,
    sinks: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    heads: int,
    kv_heads: int,
) -> None:
    expect_rank(OP, "query", query, 3, "(B, S, H·D)")
    expect_rank(OP, "past_key", past_key, 4, "(B, K, C, D)")
    batch, new, _ = query.shape
    capacity, head_dim = past_key.shape[2:]
    expect_multiple(OP, "past_key", past_key, 3, 2, "(B, K, C, D) with D even")
    expect_shape(OP, "query", query, (batch, new, heads * head_dim), "(B, S, H·D)")
    for name, tensor in (("key", key), ("value", value)):
        expect_shape(OP, name, tensor, (batch, new, kv_heads * head_dim), "(B, S, K·D)")
    for name, tensor in (("past_key", past_key), ("past_value", past_value)):
        expect_shape(OP, name, tensor, (batch, kv_heads, capacity, head_dim), "(B, K, C, D)")
    expect_shape(OP, "sinks", sinks, (heads,), "(H)")
    for name, tensor in (("cos", cos), ("sin", sin)):
        expect_shape(OP, name, tensor, (batch, new, head_dim // 2), "(B, S, D/2)")


def _check_lengths(
    past_lengths: torch.Tensor, new_lengths: torch.Tensor, query: torch.Tensor
) -> None:
    batch, new, _ = query.shape
    limits = (
        ("past_lengths", past_lengths, LONGEST, "2^62"),
        ("new_lengths", new_lengths, new, f"{new} = S"),
    )
    for name, lengths, most, legend in limits:
        expect_shape(OP, name, lengths, (batch,), "(B)")
        rows = torch.nonzero((lengths < 0) | (lengths > most)).flatten().tolist()
        if rows:
            raise InputError(
                f"{OP}: input '{name}': found {int(lengths[rows[0]])} in row {rows[0]}, expected 0 "
                f"to {legend}"
            )


def check_capacity(capacity: int, past_lengths: torch.Tensor, new: int, window: int) -> None:
    """Refuse a call that would overwrite a slot one of its own queries still sees.

    A full layer needs C ≥ past + S (S counts padding); a window layer needs C ≥ min(past + S,
    window + S − 1).

    Raises:
        InputError: naming the first row that does not fit.
    """
    needed = past_lengths + new
    if window > 0:
        needed = needed.clamp(max=window + new - 1)
    rows = torch.nonzero(needed > capacity).flatten().tolist()
    if rows:
        row = rows[0]
        raise InputError(
            f"SinkAttention: row {row} has {int(past_lengths[row])} cached tokens and {new} new "
            "ones and needs "
            f"{int(needed[row])} slots (window {window}); the cache holds {capacity}"
        )


def visible_slots(
    positions: torch.Tensor, last: torch.Tensor, capacity: int, window: int
) -> torch.Tensor:
    """Return which slots each query sees, bool (B, S, C), from its position (B, S) and the row's
    last one (B).
    """
    slots = torch.arange(capacity, device=positions.device)
    # (B, C): position in each slot
    held = last.unsqueeze(1) - torch.remainder(last.unsqueeze(1) - slots, capacity)
    distance = positions.unsqueeze(2) - held.unsqueeze(1)  # (B, S, C)
    visible: torch.Tensor = (held.unsqueeze(1) >= 0) & (distance >= 0)
    if window > 0:
        visible = torch.logical_and(visible, distance < window)
    return visible


def _split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    # (B, S, n·D) → (B, n, S, D)
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate (B, n, S, D) by half-split RoPE: dimension i pairs with i + D/2."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _write(past: torch.Tensor, new: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return `past` (B, K, C, D) with `new` (B, K, S, D) in the slots of `positions` (B, S)."""
    slots = torch.remainder(positions, past.shape[2])
    index = slots[:, None, :, None].expand_as(new)
    return past.scatter(2, index, new.to(past.dtype))

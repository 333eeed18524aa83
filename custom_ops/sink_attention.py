"""PyTorch definition of `ai.gptoss::SinkAttention`: RoPE, cache write, then attention over the
cache, with sinks and biases by distance where the layer has them.

Sources: openai/gpt-oss `gpt_oss/torch/model.py`, `sdpa`: a learned logit per head joins the softmax
and takes probability mass, but no value. ALiBi: arXiv 2108.12409. A bias table by distance is what
T5's relative buckets come to in a decoder (arXiv 1910.10683). Kept first tokens: StreamingLLM,
arXiv 2309.17453, whose keys are rotated by their place in the cache; here a key is rotated once, at
its own position, and a kept key meets a query that is rotated to stand at the end of a full cache,
at min(p, W − 1): the angle between them is the same.

Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, G = H/K, D head dim, R
    rotary width, W window, N distances. cache_slots.py says what the cache holds where. The new
    keys and values are written first, padding included; attention then reads the cache alone.
"""

import torch

from gptoss_onnx.custom_ops.cache_slots import (
    check_capacity,
    held_positions,
    slots_of,
    visible_slots,
)
from gptoss_onnx.custom_ops.sink_attention_checks import (
    check_attributes,
    check_lengths,
    check_optional_inputs,
    check_shapes,
)


@torch.library.custom_op("gptoss::sink_attention", mutates_args=())
def sink_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    past_key: torch.Tensor,
    past_value: torch.Tensor,
    past_lengths: torch.Tensor,
    new_lengths: torch.Tensor,
    sinks: torch.Tensor | None,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    alibi_slopes: torch.Tensor | None,
    distance_bias: torch.Tensor | None,
    sink_cos: torch.Tensor | None,
    sink_sin: torch.Tensor | None,
    num_heads: int,
    kv_num_heads: int,
    scale: float,
    window: int,
    interleaved: int = 0,
    sink_tokens: int = 0,
    sink_bias: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend S new tokens a row over the cache.

    Args:
        query: (B, S, H·D), floating; rows are right-padded.
        key: (B, S, K·D).
        value: (B, S, K·D).
        past_key: (B, K, C, D), the cache dtype; rotated keys.
        past_value: (B, K, C, D).
        past_lengths: int64 (B), tokens already cached.
        new_lengths: int64 (B), real tokens of this call, 0 ≤ new ≤ S.
        sinks: (H), added to the softmax denominator as exp(sink).
        cos: (B, S, R/2), of each token's angles, times the YaRN attention factor; R ≤ D, and
            dimensions from R on are not rotated. Without cos and sin nothing is rotated.
        sin: (B, S, R/2).
        alibi_slopes: (H), slope · distance is taken off a score.
        distance_bias: (H, N), [distance] is added to a score, the last column to all farther ones.
        sink_cos: (B, S, R/2), of the angles that a query has for the kept first tokens: those of
            position min(p, W − 1). Needed if `cos` is given and `sink_tokens` > 0, else refused.
        sink_sin: (B, S, R/2).
        num_heads: H.
        kv_num_heads: K.
        scale: factor of the scores, D^-½.
        window: keys a query sees, itself and kept tokens included; 0 means all.
        interleaved: 1: dimension 2i pairs with 2i + 1; 0: i with i + R/2.
        sink_tokens: first tokens of a row that stay in the cache and are always seen; less than
            `window`. Their distance from a query at p counts from min(p, W − 1).
        sink_bias: added to the scores of the kept first tokens.

    Returns:
        Output (B, S, H·D) in the dtype of `query` (padding rows are finite and mean nothing; a
        query that sees no key and has no sink gives zeros), present_key and present_value
        (B, K, C, D) in the cache dtype.

    Raises:
        InputError: an attribute makes no sense, inputs or lengths do not fit, or the cache is too
            small for this call (see `check_capacity`).
    """
    check_attributes(num_heads, kv_num_heads, scale, window, interleaved, sink_tokens, sink_bias)
    check_shapes(query, key, value, past_key, past_value, num_heads, kv_num_heads)
    batch, new, _ = query.shape
    capacity, head_dim = past_key.shape[2:]
    optional = {
        "sinks": sinks,
        "cos": cos,
        "sin": sin,
        "alibi_slopes": alibi_slopes,
        "distance_bias": distance_bias,
        "sink_cos": sink_cos,
        "sink_sin": sink_sin,
    }
    check_optional_inputs(query, head_dim, num_heads, sink_tokens, optional)
    check_lengths(past_lengths, new_lengths, batch, new)
    check_capacity(capacity, past_lengths, new, window)

    compute = torch.promote_types(query.dtype, torch.float32)
    heads = _split_heads(query.to(compute), num_heads)  # (B, H, S, D)
    keys = rotate(_split_heads(key.to(compute), kv_num_heads), cos, sin, interleaved)
    values = _split_heads(value.to(compute), kv_num_heads)
    positions = past_lengths.unsqueeze(1) + torch.arange(new, device=query.device)  # (B, S)
    slots = slots_of(positions, capacity, sink_tokens)
    present_key = _write(past_key, keys, slots)
    present_value = _write(past_value, values, slots)

    def products(queries: torch.Tensor) -> torch.Tensor:
        grouped = queries.view(batch, kv_num_heads, -1, new, head_dim)
        # (B, K, G, S, C)
        return scale * grouped @ present_key.to(compute).transpose(2, 3).unsqueeze(2)

    scores = products(rotate(heads, cos, sin, interleaved))
    if sink_tokens > 0:
        kept = products(rotate(heads, sink_cos, sink_sin, interleaved)) + sink_bias
        is_kept = torch.arange(capacity, device=query.device) < sink_tokens
        scores = torch.where(is_kept, kept, scores)
    last = past_lengths + new_lengths - 1
    if alibi_slopes is not None or distance_bias is not None:
        distance = _bias_distance(positions, last, capacity, window, sink_tokens)
        bias = _distance_bias(distance, alibi_slopes, distance_bias)  # (B, H, S, C)
        scores = scores + bias.to(compute).view_as(scores)
    visible = visible_slots(positions, last, capacity, window, sink_tokens)
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    output = _softmax(scores, sinks) @ present_value.to(compute).unsqueeze(2)  # (B, K, G, S, D)
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
    **__: object,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty_like(past_key), torch.empty_like(past_value)


def rotate(
    x: torch.Tensor, cos: torch.Tensor | None, sin: torch.Tensor | None, interleaved: int = 0
) -> torch.Tensor:
    """Rotate the first R dimensions of each head (B, n, S, D) by angles (B, S, R/2); without
    angles, return `x`.
    """
    if cos is None or sin is None:
        return x
    cos, sin = cos.to(x.dtype).unsqueeze(1), sin.to(x.dtype).unsqueeze(1)  # (B, 1, S, R/2)
    turned, rest = x.tensor_split((2 * cos.shape[3],), dim=-1)
    if interleaved:
        first, second = turned.unflatten(-1, (-1, 2)).unbind(-1)
    else:
        first, second = turned.chunk(2, dim=-1)
    pairs = (first * cos - second * sin, second * cos + first * sin)
    turned = torch.stack(pairs, dim=-1).flatten(-2) if interleaved else torch.cat(pairs, dim=-1)
    return torch.cat((turned, rest), dim=-1)


def _bias_distance(
    positions: torch.Tensor, last: torch.Tensor, capacity: int, window: int, kept: int
) -> torch.Tensor:
    """Return how far each slot's position lies behind each query, int64 (B, S, C); for a kept token
    the query stands at min(p, W − 1). Slots that a query does not see may have any.
    """
    held = held_positions(last, capacity, kept).unsqueeze(1)  # (B, 1, C)
    own = positions.unsqueeze(2)  # (B, S, 1)
    return torch.where(held < kept, own.clamp(max=window - 1), own) - held


def _distance_bias(
    distance: torch.Tensor, slopes: torch.Tensor | None, table: torch.Tensor | None
) -> torch.Tensor:
    """Return what is added to the scores, (B, H, S, C)."""
    bias = torch.zeros((), device=distance.device)
    if slopes is not None:
        bias = bias - slopes[:, None, None] * distance.unsqueeze(1)
    if table is not None:
        columns = distance.clamp(0, table.shape[1] - 1)
        bias = bias + table[:, columns].transpose(0, 1)
    return bias


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Return the weights of the keys (B, K, G, S, C), beside a sink where there is one; zeros where
    nothing can be seen.
    """
    if sinks is not None:
        sink = sinks.to(scores.dtype).view(1, scores.shape[1], -1, 1, 1)
        scores = torch.cat((scores, sink.expand(*scores.shape[:1], -1, -1, scores.shape[3], 1)), -1)
    empty = (scores == float("-inf")).all(dim=-1, keepdim=True)
    weights = scores.softmax(dim=-1).masked_fill(empty, 0)
    return weights if sinks is None else weights[..., :-1]


def _split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    # (B, S, n·D) → (B, n, S, D)
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _write(past: torch.Tensor, new: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Return `past` (B, K, C, D) with `new` (B, K, S, D) in `slots` (B, S)."""
    index = slots[:, None, :, None].expand_as(new)
    return past.scatter(2, index, new.to(past.dtype))

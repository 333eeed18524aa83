"""What SinkAttention's definition refuses, as its native kernel does: attributes, inputs and
lengths that do not fit each other.

Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, D head dim, R rotary
    width, N distances.
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
Inputs = dict[str, torch.Tensor | None]


def check_attributes(
    num_heads: int,
    kv_num_heads: int,
    scale: float,
    window: int,
    interleaved: int,
    sink_tokens: int,
    sink_bias: float,
) -> None:
    """Refuse values that no layer can have."""
    expect_attribute(OP, "num_heads", num_heads, num_heads >= 1, "at least 1")
    expect_attribute(OP, "kv_num_heads", kv_num_heads, kv_num_heads >= 1, "at least 1")
    multiple = f"a multiple of kv_num_heads = {kv_num_heads}"
    expect_attribute(OP, "num_heads", num_heads, num_heads % kv_num_heads == 0, multiple)
    expect_attribute(OP, "scale", scale, math.isfinite(scale), "a finite number")
    expect_attribute(OP, "window", window, window >= 0, "0 (all) or more")
    expect_attribute(OP, "interleaved", interleaved, interleaved in (0, 1), "0 or 1")
    fits = sink_tokens == 0 or 0 < sink_tokens < window
    expect_attribute(OP, "sink_tokens", sink_tokens, fits, f"0, or less than window = {window}")
    fits = math.isfinite(sink_bias) and (sink_bias == 0 or sink_tokens > 0)
    expect_attribute(OP, "sink_bias", sink_bias, fits, "a finite number, 0 without sink_tokens")


def check_shapes(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    past_key: torch.Tensor,
    past_value: torch.Tensor,
    heads: int,
    kv_heads: int,
) -> None:
    """Refuse required inputs that do not fit each other."""
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


def check_optional_inputs(
    query: torch.Tensor, head_dim: int, heads: int, sink_tokens: int, inputs: Inputs
) -> None:
    """Refuse optional inputs (name → tensor, or None where omitted) of a wrong shape, or one
    without the other that gives it a meaning.
    """
    batch, new, _ = query.shape
    rotates, keeps = inputs["cos"] is not None, sink_tokens > 0
    _expect_presence("sin", inputs["sin"], rotates, "with cos")
    for name in ("sink_cos", "sink_sin"):
        _expect_presence(name, inputs[name], rotates and keeps, "with cos and sink_tokens")
    for name in ("sinks", "alibi_slopes"):
        if (tensor := inputs[name]) is not None:
            expect_shape(OP, name, tensor, (heads,), "(H)")
    if (table := inputs["distance_bias"]) is not None:
        expect_rank(OP, "distance_bias", table, 2, "(H, N)")
        expect_multiple(OP, "distance_bias", table, 1, 1, "(H, N) with N at least 1")
        expect_shape(OP, "distance_bias", table, (heads, table.shape[1]), "(H, N)")
    if (cos := inputs["cos"]) is None:
        return
    expect_rank(OP, "cos", cos, 3, "(B, S, R/2)")
    half = min(max(1, cos.shape[2]), head_dim // 2)
    legend = f"(B, S, R/2) with R/2 from 1 to D/2 = {head_dim // 2}"
    for name in ("cos", "sin", "sink_cos", "sink_sin"):
        if (tensor := inputs[name]) is not None:
            expect_shape(OP, name, tensor, (batch, new, half), legend)


def _expect_presence(name: str, tensor: torch.Tensor | None, wanted: bool, when: str) -> None:
    if (tensor is not None) != wanted:
        found = "no tensor" if tensor is None else "a tensor"
        raise InputError(f"{OP}: input '{name}': found {found}, expected one {when} and only then")


def check_lengths(
    past_lengths: torch.Tensor, new_lengths: torch.Tensor, batch: int, new: int
) -> None:
    """Refuse lengths (B) that no cache can have, or that go beyond the tokens of the call."""
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

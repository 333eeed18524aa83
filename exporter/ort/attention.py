"""Graph pass of the ort target: attention becomes RotaryEmbedding and GroupQueryAttention.

Matches every SinkAttention. Where query and key rotate, the standard op does it with the cosines
and sines that the graph computes for the call, YaRN's attention factor included, so no table limits
the context. GroupQueryAttention then writes the cache and attends, with the sinks as `head_sink`
and ALiBi as `attention_bias`; window layers keep their last positions themselves
(`sliding_window_cache`). Where rows may differ it is told how many tokens each has, and what it
leaves in the padding becomes zero. Leaves alone: projections and the computation of cosines and
sines.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.schemas import SINK_ATTENTION
from gptoss_onnx.exporter.nodes import CONTRIB, constant, make_node, replace
from gptoss_onnx.exporter.ort.alibi import insert_alibi
from gptoss_onnx.exporter.ort.interface import Lengths
from gptoss_onnx.exporter.ort.row_lengths import (
    blank_padding,
    query_lengths,
    real_columns,
    window_lengths,
)

_OMITTED_BEFORE_BIAS = 3  # cos_cache, sin_cache, position_ids
_OMITTED_BEFORE_QUERY_LENGTHS = 4  # scales of keys and of values, norms of queries and of keys


def lower_attention(model: ir.Model, lengths: Lengths) -> None:
    """Replace every SinkAttention of `model`, none with kept first tokens, in place."""
    graph = model.graph
    nodes = [node for node in graph if (node.domain, node.op_type) == (DOMAIN, "SinkAttention")]
    rows = _by_row(graph, nodes, lengths)
    biases: dict[tuple[ir.Value, Lengths], ir.Value] = {}
    for node in nodes:
        names = (operand.name for operand in SINK_ATTENTION.inputs)
        given = dict(zip(names, node.inputs, strict=False))  # the last ones may be left out
        slopes = given.get("alibi_slopes")
        seen = rows.in_windows if node.attributes["window"].as_int() else lengths
        if slopes is not None and (slopes, seen) not in biases:
            scope = "alibi" if seen is lengths else "alibi_in_windows"
            biases[slopes, seen] = insert_alibi(graph, node, slopes, seen, scope)
        assert given.get("distance_bias") is None
        assert node.attributes.get_int("sink_tokens", 0) == 0
        heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
        query, key = given["query"], given["key"]
        rotations = []
        if given.get("cos") is not None:
            cos_sin, width = [given["cos"], given["sin"]], _rotary_width(given)
            rotations = [
                _rotation(node, [query, *cos_sin], heads, width, "_query"),
                _rotation(node, [key, *cos_sin], kv_heads, width, "_key"),
            ]
            query, key = (rotation.outputs[0] for rotation in rotations)
        operands = [query, key, given["value"], given["past_key"], given["past_value"]]
        operands += [seen.last_positions, seen.total, *[None] * _OMITTED_BEFORE_BIAS]
        operands += [None if slopes is None else biases[slopes, seen], given.get("sinks")]
        operands += [*[None] * _OMITTED_BEFORE_QUERY_LENGTHS, rows.new]
        attributes = _attributes(node, heads, kv_heads)
        attention = make_node(
            node, "GroupQueryAttention", operands, attributes, domain=CONTRIB, outputs=3
        )
        replace(graph, node, [*rotations, attention])
        if rows.real is not None:
            zero = constant(graph, "columns.blank", np.array(0, np.float32))
            blank_padding(attention, rows.real, zero)
    if rows.in_windows is not lengths and not rows.in_windows.past.uses():  # ALiBi alone reads it
        unread = rows.in_windows.past.producer()
        assert unread is not None
        graph.remove(unread)


@dataclass(frozen=True)
class _Rows:
    """What attention is told of rows that may differ; None where they may not.

    Attributes:
        new: int32 (B), tokens of this call.
        real: bool (B, S, 1), which columns they are.
        in_windows: what window layers need to know of the call.
    """

    new: ir.Value | None
    real: ir.Value | None
    in_windows: Lengths


def _by_row(graph: ir.Graph, nodes: list[ir.Node], lengths: Lengths) -> _Rows:
    if lengths.new is None:
        return _Rows(None, None, lengths)
    first, in_windows = nodes[0], lengths
    if any(node.attributes["window"].as_int() for node in nodes):
        in_windows = window_lengths(graph, first, lengths)
    new = query_lengths(graph, first, lengths.new)
    return _Rows(new, real_columns(graph, first, lengths), in_windows)


def _rotary_width(given: dict[str, ir.Value | None]) -> int:
    """Return how many dimensions of a head rotate; 0 stands for all of them."""
    cos, cache = given["cos"], given["past_key"]
    assert cos is not None
    assert cos.shape is not None
    assert cache is not None
    assert cache.shape is not None
    half, head_dim = cos.shape[-1], cache.shape[-1]
    assert isinstance(half, int)
    return 0 if 2 * half == head_dim else 2 * half


def _rotation(
    old: ir.Node, inputs: list[ir.Value | None], heads: int, width: int, suffix: str
) -> ir.Node:
    attributes = {"num_heads": heads}
    if width:
        attributes["rotary_embedding_dim"] = width
    if old.attributes.get_int("interleaved", 0) == 1:
        attributes["interleaved"] = 1
    return make_node(old, "RotaryEmbedding", inputs, attributes, suffix=suffix)


def _attributes(node: ir.Node, heads: int, kv_heads: int) -> dict[str, int | float]:
    attributes: dict[str, int | float] = {
        "num_heads": heads,
        "kv_num_heads": kv_heads,
        "scale": node.attributes["scale"].as_float(),
        "do_rotary": 0,
    }
    window = node.attributes["window"].as_int()
    return attributes | ({"local_window_size": window, "sliding_window_cache": 1} if window else {})

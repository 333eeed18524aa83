"""Graph pass of the ort target: attention becomes RotaryEmbedding and GroupQueryAttention.

Matches every SinkAttention. Query and key are rotated by the standard op with the cosines and sines
that the graph computes for the call, YaRN's attention factor included, so no table limits the
context. GroupQueryAttention then writes the cache and attends, with the sinks as `head_sink`;
window layers keep their last positions themselves (`sliding_window_cache`). Leaves alone:
projections and the computation of cosines and sines.
"""

import onnx_ir as ir

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.exporter.nodes import CONTRIB, make_node, replace

_OMITTED_BEFORE_SINK = 4  # cos_cache, sin_cache, position_ids, attention_bias


def lower_attention(model: ir.Model, last_positions: ir.Value, total_length: ir.Value) -> None:
    """Replace every SinkAttention of `model` in place.

    Args:
        model: the graph.
        last_positions: int32 (B), each row's tokens less one, those of this call included:
            GroupQueryAttention's `seqlens_k`.
        total_length: int32 scalar or (1), the most tokens of a row.
    """
    for node in [
        node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, "SinkAttention")
    ]:
        query, key, value, past_key, past_value, _, _, sinks, cos, sin = node.inputs
        heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
        rotated_query = make_node(
            node, "RotaryEmbedding", [query, cos, sin], {"num_heads": heads}, suffix="_query"
        )
        rotated_key = make_node(
            node, "RotaryEmbedding", [key, cos, sin], {"num_heads": kv_heads}, suffix="_key"
        )
        operands = [rotated_query.outputs[0], rotated_key.outputs[0], value, past_key, past_value]
        operands += [last_positions, total_length, *[None] * _OMITTED_BEFORE_SINK, sinks]
        attributes = _attributes(node, heads, kv_heads)
        attention = make_node(
            node, "GroupQueryAttention", operands, attributes, domain=CONTRIB, outputs=3
        )
        replace(model.graph, node, [rotated_query, rotated_key, attention])


def _attributes(node: ir.Node, heads: int, kv_heads: int) -> dict[str, int | float]:
    attributes: dict[str, int | float] = {
        "num_heads": heads,
        "kv_num_heads": kv_heads,
        "scale": node.attributes["scale"].as_float(),
        "do_rotary": 0,
    }
    window = node.attributes["window"].as_int()
    return attributes | ({"local_window_size": window, "sliding_window_cache": 1} if window else {})

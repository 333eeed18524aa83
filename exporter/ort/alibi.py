"""ALiBi for GroupQueryAttention, which has no slopes: what they add to every score, computed once a
call and shared by all layers.
"""

import numpy as np
import onnx_ir as ir

from gptoss_onnx.exporter.nodes import constant, insert_node
from gptoss_onnx.exporter.ort.interface import Lengths


def insert_alibi(
    graph: ir.Graph, before: ir.Node, slopes: ir.Value, lengths: Lengths, scope: str
) -> ir.Value:
    """Put nodes before `before`, the first that attends; returns its `attention_bias`.

    That is float32 (B, H, S, total), slope · (position of the key − that of the query). A key lies
    in the column of its position, in window layers too, whose positions count from
    `window_starts`. What it is for keys behind the query does not matter: these are masked.

    Args:
        graph: the graph.
        before: a node that nothing of what this computes depends on.
        slopes: float32 (H).
        lengths: of the call.
        scope: what the nodes are named after.
    """

    def node(op: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        return insert_node(graph, before, op, inputs, f"{scope}.{name}", attributes)

    def numbers(name: str, *values: int) -> ir.Value:
        return constant(graph, f"{scope}.{name}", np.array(values, np.int64))

    zero = constant(graph, f"{scope}.zero", np.array(0, np.int64))
    one = constant(graph, f"{scope}.one", np.array(1, np.int64))
    total = node("Squeeze", [lengths.width], "total")
    keys = node("Range", [zero, total, one], "keys")  # (total)
    new = node("Slice", [keys, numbers("first", 0), lengths.sequence], "new")  # (S)
    new = node("Reshape", [new, numbers("column", -1, 1)], "new_column")  # (S, 1)
    past = node("Reshape", [lengths.past, numbers("rows", -1, 1, 1, 1)], "past_rows")
    queries = node("Add", [past, new], "queries")  # (B, 1, S, 1)
    backwards = node("Sub", [keys, queries], "backwards")  # (B, 1, S, total)
    wide = node("Cast", [backwards], "backwards_float32", to=ir.DataType.FLOAT)
    by_head = node("Reshape", [slopes, numbers("heads", -1, 1, 1)], "slopes_by_head")
    return node("Mul", [wide, by_head], "bias")  # (B, H, S, total)

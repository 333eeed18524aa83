"""What the graphs of the ort target for ONNX Runtime 1.32 need beside those for 1.28, so that rows
of a batch may differ.

`new_lengths` (rows) says how many of a call's columns are tokens, in each row; the others, at the
end, are padding. By default it is −1: the ones that `attention_mask` has in these columns count,
which is how onnxruntime-genai gives batches. `window_starts` (rows) says how many of a row's first
tokens are gone from the buffers of window layers: slot 0 holds the token after them. Who keeps
these buffers himself can take tokens back; for everybody else the op evicts. It is optional as
well, by default 0. One number serves all rows.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gptoss_onnx.exporter.nodes import constant, insert_node

if TYPE_CHECKING:
    from gptoss_onnx.exporter.ort.interface import Lengths

WINDOW_STARTS = "window_starts"


def make_optional(
    graph: ir.Graph, value: ir.Value, default: NDArray[Any], shape: tuple[str, ...]
) -> None:
    """Make `value` an input of this shape that callers may leave out, after all inputs there
    are.
    """
    assert value.name is not None
    value.const_value = ir.tensor(default, name=value.name)
    value.shape = ir.Shape(shape)
    graph.initializers[value.name] = value
    if value in graph.inputs:
        graph.inputs.remove(value)
    graph.inputs.append(value)


def read_new_lengths(
    graph: ir.Graph, first: ir.Node, given: ir.Value, mask: ir.Value, sequence: ir.Value
) -> ir.Value:
    """Return the tokens of each row, int64 (B), in which the graph's input `new_lengths` is
    negative where it is left out.

    Args:
        graph: the graph.
        first: its first node; new ones come before it.
        given: the input, whose users get the result instead.
        mask: int64 (B, total), ones for tokens; its last columns are those of this call.
        sequence: int64 (1), the columns.
    """
    users = list(given.uses())
    zero = constant(graph, "lengths.zero", np.array([0], np.int64))
    left_out = insert_node(graph, first, "Less", [given, zero], "lengths.new_left_out")
    masked = _masked_columns(graph, first, mask, sequence)
    new = insert_node(graph, first, "Where", [left_out, masked, given], "lengths.new")  # (B)
    for node, index in users:
        node.replace_input_with(index, new)
    return new


def _masked_columns(
    graph: ir.Graph, first: ir.Node, mask: ir.Value, sequence: ir.Value
) -> ir.Value:
    """Return how many of the last `sequence` columns of each row are ones, int64 (B)."""
    one = constant(graph, "lengths.one", np.array([1], np.int64))
    width = insert_node(graph, first, "Shape", [mask], "lengths.mask", {"start": 1, "end": 2})
    start = insert_node(graph, first, "Sub", [width, sequence], "lengths.mask_start")
    columns = insert_node(graph, first, "Slice", [mask, start, width, one], "lengths.mask_columns")
    return insert_node(graph, first, "ReduceSum", [columns, one], "lengths.masked", {"keepdims": 0})


def count_from_row_end(
    graph: ir.Graph, first: ir.Node, positions: ir.Value, new: ir.Value
) -> ir.Value:
    """Return positions (B, kept) of which negative ones count from the end of each row's tokens."""
    zero = constant(graph, "lengths.zero", np.array([0], np.int64))
    one = constant(graph, "lengths.one", np.array([1], np.int64))
    column = insert_node(
        graph, first, "Unsqueeze", [new, one], "logit_positions.row_ends"
    )  # (B, 1)
    backwards = insert_node(graph, first, "Less", [positions, zero], "logit_positions.backwards")
    ahead = insert_node(graph, first, "Add", [positions, column], "logit_positions.ahead")
    return insert_node(
        graph, first, "Where", [backwards, ahead, positions], "logit_positions.in_row"
    )


def window_lengths(graph: ir.Graph, before: ir.Node, lengths: "Lengths") -> "Lengths":
    """Return `lengths` as window layers count: without the tokens before `window_starts`, which
    becomes an input.
    """
    starts = ir.Value(name=WINDOW_STARTS, type=ir.TensorType(ir.DataType.INT64))
    make_optional(graph, starts, np.array([0], np.int64), ("rows",))
    starts_int32 = insert_node(
        graph, before, "Cast", [starts], "window.starts_int32", {"to": ir.DataType.INT32}
    )
    last = insert_node(graph, before, "Sub", [lengths.last_positions, starts_int32], "window.last")
    past = insert_node(graph, before, "Sub", [lengths.past, starts], "window.past")
    return replace(lengths, last_positions=last, past=past)


def query_lengths(graph: ir.Graph, before: ir.Node, new: ir.Value) -> ir.Value:
    """Return the tokens of each row as GroupQueryAttention takes them, int32 (B)."""
    return insert_node(graph, before, "Cast", [new], "lengths.new_int32", {"to": ir.DataType.INT32})


def real_columns(graph: ir.Graph, before: ir.Node, lengths: "Lengths") -> ir.Value:
    """Return which columns hold a token, bool (B, S, 1)."""
    assert lengths.new is not None
    zero, one = (constant(graph, f"columns.{n}", np.array(n, np.int64)) for n in (0, 1))
    count = insert_node(graph, before, "Squeeze", [lengths.sequence], "columns.count")
    columns = insert_node(graph, before, "Range", [zero, count, one], "columns")  # (S)
    axes = constant(graph, "columns.axes", np.array([1], np.int64))
    ends = insert_node(graph, before, "Unsqueeze", [lengths.new, axes], "columns.ends")  # (B, 1)
    real = insert_node(graph, before, "Less", [columns, ends], "columns.real")  # (B, S)
    last = constant(graph, "columns.last_axis", np.array([-1], np.int64))
    return insert_node(graph, before, "Unsqueeze", [real, last], "columns.real_column")


def blank_padding(attention: ir.Node, real: ir.Value, zero: ir.Value) -> None:
    """Put zeros into the padding of what `attention` gives, which leaves it as its memory was.

    Such memory may hold what is no number, and experts are chosen for padding, too.
    """
    found = attention.outputs[0]
    users = list(found.uses())
    assert attention.graph is not None
    assert attention.name is not None
    node = ir.node("Where", [real, found, zero], name=f"{attention.name}_tokens")
    node.outputs[0].name = f"{node.name}.output"
    node.outputs[0].type, node.outputs[0].shape = found.type, found.shape
    attention.graph.insert_after(attention, node)
    for user, index in users:
        user.replace_input_with(index, node.outputs[0])

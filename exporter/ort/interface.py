"""Graph pass of the ort target: inputs and outputs by the conventions of onnxruntime-genai.

Matches the four step inputs of the traced graph and the dimensions of logits and caches.
`attention_mask` (batch, total) of ones takes the place of `past_lengths` and `new_lengths`: a row
holds as many tokens as its mask has ones, those of this call at the end. `logit_positions` becomes
optional: its default, −1, is the last position, so that callers who do not know it get logits
    (batch, 1, vocabulary), which onnxruntime-genai takes from models whose declared
shape says so. Leaves alone: `input_ids`, the names of caches, and every node but those that used
the inputs.

Where rows may differ (`by_row`), `new_lengths` stays an input, optional as well: see
`gptoss_onnx.exporter.ort.row_lengths`.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gptoss_onnx.exporter.nodes import constant, insert_node
from gptoss_onnx.exporter.ort.row_lengths import (
    count_from_row_end,
    make_optional,
    read_new_lengths,
)

MASK = "attention_mask"


@dataclass(frozen=True)
class Lengths:
    """What attention needs to know of a call.

    Attributes:
        last_positions: int32 (B), each row's tokens less one, those of this call included.
        total: int32 (1), the most tokens of a row.
        width: the same in int64.
        sequence: int64 (1), the columns of this call.
        past: int64 (B), each row's tokens before this call.
        new: int64 (B), each row's tokens of this call; None where all have as many as columns.
    """

    last_positions: ir.Value
    total: ir.Value
    width: ir.Value
    sequence: ir.Value
    past: ir.Value
    new: ir.Value | None


def lower_interface(model: ir.Model, by_row: bool) -> Lengths:
    """Rewrite the inputs and outputs of `model` in place; to be called before the attention is
    lowered.

    Args:
        model: the traced graph.
        by_row: rows may have different numbers of new tokens.
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    mask = _input(graph, MASK, ("batch", "total"))
    first = next(iter(graph))
    one = constant(graph, "lengths.one", np.array([1], np.int64))
    lengths = insert_node(graph, first, "ReduceSum", [mask, one], "lengths", {"keepdims": 0})  # (B)
    # GroupQueryAttention takes no row without any token, not even where it has nothing to do.
    most = insert_node(graph, first, "Max", [lengths, one], "lengths.most") if by_row else lengths
    before = insert_node(graph, first, "Sub", [most, one], "lengths.last")
    last = insert_node(
        graph, first, "Cast", [before], "lengths.last_int32", {"to": ir.DataType.INT32}
    )
    width = insert_node(
        graph, first, "Shape", [mask], "lengths.total", {"start": 1, "end": 2}
    )  # (1)
    total = insert_node(
        graph, first, "Cast", [width], "lengths.total_int32", {"to": ir.DataType.INT32}
    )
    sequence = insert_node(
        graph, first, "Shape", [inputs["input_ids"]], "lengths.sequence", {"start": 1, "end": 2}
    )
    new = None
    if by_row:
        new = read_new_lengths(graph, first, inputs["new_lengths"], mask, sequence)
    else:
        ir.convenience.replace_all_uses_with(inputs["new_lengths"], sequence)
    past = insert_node(graph, first, "Sub", [lengths, new or sequence], "lengths.past")
    ir.convenience.replace_all_uses_with(inputs["past_lengths"], past)
    if "logit_positions" in inputs:  # a stage without the last layer has none
        _optional_positions(graph, inputs["logit_positions"], first, sequence, new)
    if by_row:
        make_optional(graph, inputs["new_lengths"], np.array([-1], np.int64), ("rows",))
    _declare_shapes(graph)
    return Lengths(last, total, width, sequence, past, new)


def drop_unused_inputs(model: ir.Model) -> None:
    """Remove the inputs that nothing reads: `past_lengths`, and `new_lengths` unless rows may
    differ.
    """
    for value in list(model.graph.inputs):
        if not value.uses():
            model.graph.inputs.remove(value)


def _optional_positions(
    graph: ir.Graph,
    positions: ir.Value,
    first: ir.Node,
    sequence: ir.Value,
    new: ir.Value | None,
) -> None:
    """Give `logit_positions` its default, and count negative positions from the end."""
    users = list(positions.uses())
    from_end = positions if new is None else count_from_row_end(graph, first, positions, new)
    counted = insert_node(graph, first, "Mod", [from_end, sequence], "logit_positions.counted")
    for node, index in users:
        node.replace_input_with(index, counted)
    # (1, kept) serves every row
    make_optional(graph, positions, np.array([[-1]], np.int64), ("rows", "kept"))


def _declare_shapes(graph: ir.Graph) -> None:
    """Full caches grow, or stay as large as they are given; window caches always stay; logits are
    of one position.
    """
    for value in graph.inputs:
        if value.shape is not None and value.shape.rank() == 4 and value.shape[2] == "capacity":
            value.shape[2] = "past_capacity"
    for value in graph.outputs:
        assert value.shape is not None
        if value.name == "logits":
            value.shape[1] = 1
        elif value.shape.rank() == 4 and value.shape[2] == "capacity":
            value.shape[2] = "present_capacity"


def _input(graph: ir.Graph, name: str, shape: tuple[str, ...]) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.insert(1, value)
    return value

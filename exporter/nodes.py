"""Small steps that the lowering passes share: put nodes in the place of one, named after it, or
before one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

CONTRIB = "com.microsoft"


def make_node(
    old: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
    domain: str = "",
    suffix: str = "",
    outputs: int = 1,
) -> ir.Node:
    """Return a node that computes something in the place of `old`, named after it: its scope, the
    op, the suffix.

    Inputs left out at the end (None) are not stated.
    """
    assert old.name is not None
    inputs = list(inputs)
    while inputs[-1] is None:
        inputs.pop()
    name = old.name.replace(old.op_type, op) + suffix
    node = ir.node(op, inputs, attributes or {}, domain=domain, num_outputs=outputs, name=name)
    for output in node.outputs:
        output.name = f"{name}.output" if outputs == 1 else f"{name}.output_{output.index()}"
    return node


def insert_node(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: Sequence[ir.Value],
    name: str,
    attributes: dict[str, Any] | None = None,
) -> ir.Value:
    """Put a new node before another; returns its output."""
    node = ir.node(op, inputs, attributes or {}, name=name)
    node.outputs[0].name = f"{name}.output"
    graph.insert_before(before, node)
    return node.outputs[0]


def replace(graph: ir.Graph, old: ir.Node, new: Sequence[ir.Node]) -> None:
    """Put `new` in the place of `old`; the last of them gets the outputs of `old`, those of the
    graph with their names.

    Weights that nothing uses any more leave the graph.
    """
    sources = [value for value in old.inputs if value is not None and value.is_initializer()]
    for found, output in zip(old.outputs, new[-1].outputs, strict=True):
        output.type, output.shape = found.type, found.shape
        if found.is_graph_output():
            output.name = found.name
            graph.outputs[list(graph.outputs).index(found)] = output
    ir.convenience.replace_nodes_and_values(
        graph, old, [old], list(new), list(old.outputs), list(new[-1].outputs)
    )
    for value in sources:
        assert value.name is not None
        if not value.uses() and value.name in graph.initializers:
            graph.initializers.pop(value.name)


def constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Return the initializer of this name, made of `array` unless the graph has it already."""
    if name not in graph.initializers:
        tensor = ir.tensor(array, name=name)
        graph.initializers[name] = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
    return graph.initializers[name]


def interleave_biases(graph: ir.Graph, old: ir.Node, bias: ir.Value) -> list[ir.Node]:
    """Return nodes, the last of which gives experts' biases (E, 2I) of gates, then ups, in turns;
    they are named after `old`.
    """
    halves = constant(graph, "experts.halves", np.array([0, 2, -1], np.int64))
    joined = constant(graph, "experts.joined", np.array([0, -1], np.int64))
    split = make_node(old, "Reshape", [bias, halves], suffix="_halves")  # (E, 2, I)
    turned = make_node(old, "Transpose", [split.outputs[0]], {"perm": [0, 2, 1]})
    return [split, turned, make_node(old, "Reshape", [turned.outputs[0], joined])]

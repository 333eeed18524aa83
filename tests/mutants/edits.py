"""Changes of a graph, from which the tables are made: of attributes, inputs and constants.

Nodes have the names of the exporter, without `model.`: `layers.3.mlp.MoEDispatchMXFP4`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from mutants.copied import Copied
from mutants.mutant import Change
from mutants.nodes import HEALTHY, Beginning, behind, constant, make, take_instead

Array = NDArray[Any]


def attribute(node: str, name: str, value: Any) -> Change:
    """Set an attribute; `value` may be a function of the old value."""

    def change(copied: Copied) -> None:
        found = copied.node(node)
        old = {entry.name: helper.get_attribute_value(entry) for entry in found.attribute}
        new = value(old[name]) if callable(value) else value
        kept = [entry for entry in found.attribute if entry.name != name]
        del found.attribute[:]
        found.attribute.extend([*kept, helper.make_attribute(name, new)])

    return change


def exchange(first: tuple[str, int], second: tuple[str, int]) -> Change:
    """Exchange two inputs: a node and a place each."""

    def change(copied: Copied) -> None:
        (one, i), (other, j) = ((copied.node(name), place) for name, place in (first, second))
        one.input[i], other.input[j] = other.input[j], one.input[i]

    return change


def together(*changes: Change) -> Change:
    """Make several changes."""

    def change(copied: Copied) -> None:
        for each in changes:
            each(copied)

    return change


def read(node: str, place: int, source: str) -> Change:
    """Let an input read something else: the first output of a node, or a value where there is no
    such node. An empty name leaves the input out.
    """

    def change(copied: Copied) -> None:
        found = copied.node(node)
        while len(found.input) <= place:
            found.input.append("")
        found.input[place] = value_of(copied, source)
        while not found.input[-1]:
            found.input.pop()

    return change


def value_of(copied: Copied, source: str) -> str:
    """Return the value's name that `read` means."""
    names = {node.name.removeprefix("model."): node.output[0] for node in copied.model.graph.node}
    if source in names:
        return names[source]
    weights = {it.name.removeprefix("model."): it.name for it in copied.model.graph.initializer}
    return weights.get(source, source)


def skip(node: str, place: int = 0) -> Change:
    """Let all readers of a node's output read one of its inputs."""

    def change(copied: Copied) -> None:
        found = copied.node(node)
        take_instead(copied.model.graph, found.output[0], found.input[place])
        copied.model.graph.node.remove(found)

    return change


def after(node: str, op: str, *others: tuple[Any, type[np.generic]], **attributes: Any) -> Change:
    """Put a node of `op` behind one; `others` are further inputs of it, constants."""

    def change(copied: Copied) -> None:
        graph, found = copied.model.graph, copied.node(node)
        inputs = [HEALTHY, *(constant(graph, value, dtype) for value, dtype in others)]
        behind(graph, found, [make(op, inputs, f"{node}.mutant", **attributes)])

    return change


def rounded(node: str, to: int = TensorProto.BFLOAT16) -> Change:
    """Round what a node gives to a narrower type, and back."""

    def change(copied: Copied) -> None:
        narrow = make("Cast", [HEALTHY], f"{node}.narrow", to=to)
        wide = make("Cast", [f"{node}.narrow"], f"{node}.wide", to=TensorProto.FLOAT)
        behind(copied.model.graph, copied.node(node), [narrow, wide])

    return change


def dropout(node: str, share: float) -> Change:
    """Leave out some of the numbers that a node gives, other ones in each run, as in training."""

    def change(copied: Copied) -> None:
        graph = copied.model.graph
        begin = Beginning(graph)
        # true, but ONNX Runtime would take the node out if it knew
        rows = begin.add("Squeeze", begin.size("past_lengths", 0))
        training = begin.add("Cast", rows, to=TensorProto.BOOL)
        inputs = [HEALTHY, begin.constant(share, np.float32), training]
        behind(graph, copied.node(node), [make("Dropout", inputs, f"{node}.dropout")])

    return change


def number(find: Callable[[Copied], str], value: Callable[[Array], Array]) -> Change:
    """Change the value of an initializer that lies in the graph."""

    def change(copied: Copied) -> None:
        tensor = copied.tensor(find(copied))
        new = np.asarray(value(numpy_helper.to_array(tensor).copy()))
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))

    return change


def named(name: str) -> Callable[[Copied], str]:
    """Find an initializer by its name."""
    return lambda copied: name


def scalar_beside(op: str) -> Callable[[Copied], str]:
    """Find the initializer that the first node after one of `op` takes beside its output."""

    def find(copied: Copied) -> str:
        graph = copied.model.graph
        source = next(node for node in graph.node if node.op_type == op).output[0]
        reader = next(node for node in graph.node if source in node.input)
        return next(name for name in reader.input if name != source)

    return find


def rename_outputs(first: str, second: str) -> Change:
    """Exchange two outputs of the graph."""

    def change(copied: Copied) -> None:
        names = {first: second, second: first}
        for node in copied.model.graph.node:
            node.output[:] = [names.get(name, name) for name in node.output]

    return change


def nodes_of(graph: GraphProto, op: str) -> list[NodeProto]:
    """Return the nodes of an op, in their order."""
    return [node for node in graph.node if node.op_type == op]

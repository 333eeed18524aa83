"""Put new nodes into a graph: at its beginning, or behind a node in place of what it gave.

Each returns the name of what it gives.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import GraphProto, NodeProto, helper, numpy_helper


class Beginning:
    """Nodes before all others: they compute from the graph's inputs alone."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self._at = 0

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output."""
        name = f"mutant.{op}_{self._at}"
        self.graph.node.insert(self._at, helper.make_node(op, inputs, [name], name, **attributes))
        self._at += 1
        return name

    def constant(self, value: ArrayLike, dtype: type[np.generic] = np.int64) -> str:
        """Add an initializer."""
        return constant(self.graph, value, dtype)

    def size(self, value: str, axis: int) -> str:
        """Add the size of one axis, int64 (1)."""
        return self.add("Shape", value, start=axis, end=axis + 1)


def constant(graph: GraphProto, value: ArrayLike, dtype: type[np.generic]) -> str:
    """Add an initializer."""
    name = f"mutant.constant_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def behind(graph: GraphProto, node: NodeProto, made: list[NodeProto], output: int = 0) -> None:
    """Put nodes behind one: the first takes `HEALTHY` for what that gave, the last gives it."""
    given = node.output[output]
    node.output[output] = f"{given}.healthy"
    for new in made:
        new.input[:] = [node.output[output] if name == HEALTHY else name for name in new.input]
    made[-1].output[0] = given
    place = list(graph.node).index(node) + 1
    for new in reversed(made):
        graph.node.insert(place, new)


HEALTHY = "healthy"


def make(op: str, inputs: list[str], name: str, **attributes: Any) -> NodeProto:
    """Return a node of one output, which has its name."""
    return helper.make_node(op, inputs, [name], name, **attributes)


def take_instead(graph: GraphProto, old: str, new: str) -> None:
    """Let every node that reads `old` read `new`."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new

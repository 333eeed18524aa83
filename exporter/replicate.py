"""Graph pass: a graph of few layers becomes that of all layers, as a full trace would have made it.

Matches every node, weight, cache input and cache output whose name says of which layer it is, as
`tidy` names them. A traced layer keeps its nodes, under its own number. Any other layer gets a copy
of the nodes of its pattern: they read the new layer's weights and caches, the result of the layer
before it, and what the first layers compute for all. Leaves alone: what belongs to no layer, and
function bodies.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import onnx_ir as ir

from gptoss_onnx.exporter.shorten import Plan
from gptoss_onnx.layer_names import LayerName, layer_of

Rename = Callable[[str], str]


def replicate(model: ir.Model, plan: Plan) -> ir.Model:
    """Return the graph of all layers of `plan`.

    Args:
        model: the graph of the layers that `plan` traces, tidied.
        plan: which layers these are, and which of them each layer is like.
    """
    graph = model.graph
    head, layers, tail = _parts(graph)
    results = [_name(nodes[-1].outputs[0]) for nodes in layers]  # of the traced layers
    copies = _Copies()
    inputs = [copies.value(*entry) for entry in _expand(graph.inputs, plan)]
    weights = [copies.value(*entry) for entry in _expand(graph.initializers.values(), plan)]
    nodes = [copies.node(node, lambda name: name) for node in head]
    result = ""  # of the layer before
    for layer, pattern in enumerate(plan.patterns):
        read = results[pattern - 1] if layer else ""
        rename = _renaming(plan.traced, {read: result}, {pattern: layer})
        nodes += [copies.node(node, rename) for node in layers[pattern]]
        result = rename(results[pattern])
    rename = _renaming(plan.traced, {results[-1]: result}, {})
    nodes += [copies.node(node, rename) for node in tail]
    outputs = [copies.made[name] for _, name in _expand(graph.outputs, plan)]
    full = ir.Graph(
        inputs,
        outputs,
        nodes=nodes,
        initializers=weights,
        opset_imports=graph.opset_imports,
        name=graph.name,
    )
    return ir.Model(
        full,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=list(model.functions.values()),
    )


class _Copies:
    """Copies of nodes and values under other names; a node's copy reads copies by their names."""

    def __init__(self) -> None:
        self.made: dict[str, ir.Value] = {}

    def value(self, old: ir.Value, name: str) -> ir.Value:
        shape = None if old.shape is None else old.shape.copy()  # passes change shapes in place
        new = ir.Value(name=name, shape=shape, type=old.type, const_value=old.const_value)
        self.made[name] = new
        return new

    def node(self, old: ir.Node, rename: Rename) -> ir.Node:
        inputs = [
            None if value is None else self.made[rename(_name(value))] for value in old.inputs
        ]
        return ir.Node(
            old.domain,
            old.op_type,
            inputs,
            old.attributes.values(),
            outputs=[self.value(output, rename(_name(output))) for output in old.outputs],
            version=old.version,
            name=rename(old.name or ""),
        )


def _parts(graph: ir.Graph) -> tuple[list[ir.Node], list[list[ir.Node]], list[ir.Node]]:
    """Return the nodes before the layers, those of each layer, and those after the layers."""
    groups = [(layer, list(nodes)) for layer, nodes in groupby(graph, lambda n: layer_of(n.name))]
    found = [layer for layer, _ in groups]
    assert found == [None, *range(len(found) - 2), None], f"layers are not apart: {found}"
    head, *layers, tail = (nodes for _, nodes in groups)
    return head, layers, tail


def _renaming(numbers: Sequence[int], result: dict[str, str], copied: dict[int, int]) -> Rename:
    """Return how the names that a node has or reads change.

    Args:
        numbers: of the traced layers, in the model of all layers.
        result: what the node reads in the place of the result of the traced layer before it.
        copied: the traced layer that the node is of, and the layer that it is copied into.
    """

    def rename(name: str) -> str:
        layer = layer_of(name)
        if layer is None:
            return name
        return result.get(name) or _moved(name, copied.get(layer, numbers[layer]))

    return rename


def _expand(values: Iterable[ir.Value], plan: Plan) -> Iterator[tuple[ir.Value, str]]:
    """Yield values with their new names; those of a pattern for each layer that is like it."""
    for is_layer, run in groupby(values, lambda value: layer_of(value.name) is not None):
        if not is_layer:
            yield from ((value, _name(value)) for value in run)
            continue
        of_layer = {layer: list(group) for layer, group in groupby(run, lambda v: layer_of(v.name))}
        for layer, pattern in enumerate(plan.patterns):
            yield from ((value, _moved(_name(value), layer)) for value in of_layer[pattern])


def _moved(name: str, layer: int) -> str:
    """Return the name that is of another layer."""
    found = LayerName.of(name)
    assert found is not None
    return found.moved(layer)


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name

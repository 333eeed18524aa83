"""Graph pass: a graph of some layers of a model, in the place of that of all.

Matches cache inputs and outputs, and what each layer hands on, by the layer's number in their
names, as `tidy` gives them. What remains is all that the remaining outputs need. That may include a
node of another layer: the first one computes a shape that later ones share. Leaves alone: what the
remaining layers compute, and function bodies.
"""

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from gptoss_onnx.errors import PackageError
from gptoss_onnx.layer_names import layer_of
from gptoss_onnx.manifest import HIDDEN, NEXT_HIDDEN, Stage

_POSITIONS = "logit_positions"


def keep_first_layers(model: ir.Model, count: int, total: int) -> None:
    """Leave the first `count` of `total` layers, in place; what comes behind the last layer reads
    from the last one that is kept.

    Raises:
        PackageError: the graph does not hand one value from layer to layer.
    """
    graph = model.graph
    last = _result(graph, total - 1)
    if count < total:
        ir.convenience.replace_all_uses_with(last, _result(graph, count - 1))
    _keep(graph, _outputs(graph, range(count)), range(count))


def keep_stage(model: ir.Model, stage: Stage, width: int) -> None:
    """Leave the layers of a stage, in place, with what comes before the first layer of the model
    and behind the last, where these are its own.

    What a layer hands on, float32 (tokens, width), is the output `next_hidden` of a stage that is
    not the last, and the input `hidden` of one that is not the first.

    Raises:
        PackageError: the graph does not hand one value from layer to layer.
    """
    graph = model.graph
    layers = range(stage.first, stage.end)
    outputs = _outputs(graph, layers)
    if not stage.is_last:
        leaving = _result(graph, stage.end - 1)
        leaving.name, leaving.shape = NEXT_HIDDEN, ir.Shape(("tokens", width))
        outputs = [leaving, *(value for value in outputs if layer_of(value.name) is not None)]
    if not stage.is_first:
        kind = ir.TensorType(ir.DataType.FLOAT)
        hidden = ir.Value(name=HIDDEN, shape=ir.Shape(("tokens", width)), type=kind)
        ir.convenience.replace_all_uses_with(_result(graph, stage.first - 1), hidden)
        graph.inputs.insert(1, hidden)
    _keep(graph, outputs, layers)
    for value in list(graph.inputs):
        if value.name == _POSITIONS and not stage.is_last:
            graph.inputs.remove(value)


def _outputs(graph: ir.Graph, layers: range) -> list[ir.Value]:
    """Return the outputs that are of these layers or of none."""
    return [value for value in graph.outputs if _is_of(value, layers)]


def _is_of(value: ir.Value, layers: range) -> bool:
    """Say whether a value is of one of these layers, or of no layer."""
    layer = layer_of(value.name)
    return layer is None or layer in layers


def _result(graph: ir.Graph, layer: int) -> ir.Value:
    """Return what a layer hands on: the last value that it makes."""
    last = [node.outputs[0] for node in graph if layer_of(node.name) == layer][-1:]
    if not last:
        raise PackageError(f"{graph.name!r:.40}: found no node of layer {layer}, expected some")
    return last[0]


def _keep(graph: ir.Graph, outputs: Sequence[ir.Value], layers: range) -> None:
    """Leave the nodes, weights and caches that `outputs` need."""
    needed = _needed(outputs)
    given = (*graph.inputs, *graph.initializers.values())
    lost = [value.name for value in given if value in needed and not _is_of(value, layers)]
    if lost:
        raise PackageError(
            f"{graph.name!r:.40}: found {lost[0]!r:.80} of another layer, expected that only the "
            "residual stream leads from layer to layer; take the whole model"
        )
    graph.outputs[:] = outputs
    unread = [node for node in graph if not any(value in needed for value in node.outputs)]
    graph.remove(unread, safe=True)
    for value in list(graph.inputs):
        if not _is_of(value, layers):
            graph.inputs.remove(value)
    for name, value in list(graph.initializers.items()):
        if value not in needed:
            del graph.initializers[name]


def _needed(outputs: Sequence[ir.Value]) -> set[ir.Value]:
    """Return the outputs, and all values that they are computed from."""
    needed = set(outputs)
    queue = list(outputs)
    for value in queue:
        node = value.producer()
        if node is not None:
            read = [other for other in _read(node) if other not in needed]
            needed.update(read)
            queue += read
    return needed


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, also what graphs inside of it do."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _read(inner)

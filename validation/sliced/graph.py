"""Graph pass: the graph of a model's first layers.

Matches every node, weight, cache input and cache output whose name says of which layer it is, as
`exporter.tidy` names them. What the last layer gave, the nodes behind the layers now read from the
last one that is kept. Leaves alone: what belongs to no layer, and function bodies.
"""

import re
from collections.abc import Iterable
from typing import Any

import onnx

from gptoss_onnx.errors import PackageError

_LAYER = re.compile(r"(?:^|\.)(?:layers|past_key_values|present)\.(\d+)\.")


def keep_first_layers(model: onnx.ModelProto, count: int, total: int) -> None:
    """Leave the first `count` of `total` layers in a package's graph, in place.

    Raises:
        PackageError: the graph does not hand one value from layer to layer.
    """
    graph = model.graph
    ours, theirs = _result(graph, count - 1), _result(graph, total - 1)
    nodes = [node for node in graph.node if _layer(node.name) < count]
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == theirs:
                node.input[index] = ours
    outputs = [value for value in graph.output if _layer(value.name) < count]
    _replace(graph.node, nodes)
    _replace(graph.input, [value for value in graph.input if _layer(value.name) < count])
    _replace(graph.output, outputs)
    read = _read(nodes, outputs)
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read])
    made = {name for node in nodes for name in node.output}
    _replace(graph.value_info, [value for value in graph.value_info if value.name in made])
    given = made | {entry.name for entry in (*graph.input, *graph.initializer)}
    lost = sorted(read - given)
    if lost:
        raise PackageError(
            f"{graph.name!r:.40}: found {lost[0]!r:.80} of a later layer, expected that only the "
            "residual stream leads from layer to layer; judge the whole package"
        )


def _layer(name: str) -> int:
    """Return the layer that a name is of; −1 if it is of none."""
    found = _LAYER.search(name)
    return -1 if found is None else int(found[1])


def _result(graph: onnx.GraphProto, layer: int) -> str:
    """Return the name of what a layer hands on: the last value that it makes."""
    last: list[str] = [node.output[0] for node in graph.node if _layer(node.name) == layer]
    if not last:
        raise PackageError(f"{graph.name!r:.40}: found no node of layer {layer}, expected some")
    return last[-1]


def _read(nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto]) -> set[str]:
    """Return the names of all values that nodes and outputs read."""
    names = {name for node in nodes for name in node.input if name}
    return names | {value.name for value in outputs}


def _replace(field: Any, entries: Iterable[Any]) -> None:
    kept = list(entries)
    del field[:]
    field.extend(kept)

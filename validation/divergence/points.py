"""Points: where a value of the graph and one of the reference are the same thing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gptoss_onnx.errors import ParityError
from gptoss_onnx.reference import Decoder
from gptoss_onnx.validation.divergence.named_graph import NamedGraph
from gptoss_onnx.validation.divergence.recording import Recording

Side = Literal["in", "out", "cos", "sin"]
LOGITS = "logits"
MOST_BYTES = 4 << 30  # of all layers' results in one call
RESULTS = 3  # as wide as the hidden state, that are looked at in each layer
# op: which of its inputs are cosines and sines
ROTATING = {"SinkAttention": (8, 9), "RotaryEmbedding": (1, 2)}


@dataclass(frozen=True)
class Point:
    """What a module of the reference takes (`in`) or gives (`out`), and the graph's name of that
    value; `cos` and `sin` are those of the call, which the first attention takes.
    """

    module: str
    side: Side
    value: str


def outer_points(graph: NamedGraph, model: Decoder) -> list[Point]:
    """Return the points around the layers, between them, and of their two parts.

    Beside what it is added to, a part's error may be small. The routers are points as well: with
    their logits given, no expert is chosen otherwise.
    """
    first = "model.layers.0"
    modules = dict(model.named_modules())
    points = [
        *_both(graph, "model.embed_layernorm", "out"),
        *_both(graph, first, "in"),
        *_rotation(graph),
    ]
    for index in range(model.config.num_layers):
        layer = f"model.layers.{index}"
        for part in (".self_attn", ".mlp.router", ".mlp", ""):
            points += _both(graph, layer + part, "out")
    points += _both(graph, "model.norm", "in", "out")
    return [point for point in points if point.module in modules]


def inner_points(graph: NamedGraph, model: Decoder, layer: int) -> list[Point]:
    """Return the points of one layer, what it takes first and what it gives last."""
    name = f"model.layers.{layer}"
    block = model.get_submodule(name)
    entry = graph.entry(name)
    points = [] if entry is None else [Point(name, "in", entry)]
    inner = [path for path, _ in block.named_modules(prefix=name) if path != name]
    points += [point for path in inner for point in _both(graph, path, "out")]
    known = {point.value for point in points}
    for path in inner:  # what no module gives: residual sums, what attention and activation give
        for point in _both(graph, path, "in"):
            if point.value not in known and graph.layer_of(point.value) == layer:
                points.append(point)
                known.add(point.value)
    return [*points, *_rotation(graph, layer), *_both(graph, name, "out")]


def layer_points(graph: NamedGraph, model: Decoder) -> list[Point]:
    """Return what each layer gives.

    Raises ParityError where the graph's nodes have other names than an export gives them.
    """
    points = []
    for index in range(model.config.num_layers):
        found = _both(graph, f"model.layers.{index}", "out")
        if not found:
            raise ParityError(
                f"layers.{index}: found no nodes of that name in the graph, expected the names of "
                "an export; no layer can be looked at"
            )
        points += found
    return points


def check_size(model: Decoder, recording: Recording) -> None:
    """Raise ParityError if the layers' results of one call may take more than `MOST_BYTES`."""
    caches = recording.caches
    columns = max(
        (
            min(call.request.longest, caches[call.cache].chunk) * caches[call.cache].batch
            for call in recording.calls
        ),
        default=0,
    )
    size = 4 * RESULTS * columns * model.config.hidden_size * model.config.num_layers
    if size > MOST_BYTES:
        raise ParityError(
            f"the results of all layers in one call are {size / 1e9:.1f} GB, expected "
            f"{MOST_BYTES / 1e9:.1f} GB at most; no layer is looked at"
        )


def _both(graph: NamedGraph, module: str, *sides: Literal["in", "out"]) -> list[Point]:
    """Return those points of a module that the graph has."""
    found = {"in": graph.entry(module), "out": graph.result(module)}
    return [Point(module, side, value) for side in sides if (value := found[side]) is not None]


def _rotation(graph: NamedGraph, layer: int = 0) -> Iterator[Point]:
    name = f"model.layers.{layer}"
    for op, places in ROTATING.items():
        for side, index in zip(("cos", "sin"), places, strict=True):
            value = graph.operand(op, f"{name}.self_attn", index)
            if value is not None:
                yield Point(name, side, value)  # type: ignore[arg-type]

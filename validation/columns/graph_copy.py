"""Copies of a package's graph for other runtimes: in one file with its weights, and for some in the
words that they know.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.files import open_regular
from gptoss_onnx.package import Package

PROTOBUF_LIMIT = 1_900_000_000  # bytes; a protobuf holds no more than two gigabytes


def with_weights(package: Package, most: int) -> ModelProto:
    """Return a package's graph with all of its weights inside.

    Args:
        package: an opened one, whose files `open_package` has checked.
        most: bytes of weights that are wanted at most.

    Raises:
        RuntimeUnavailable: the weights are more than that.
        PackageError: a weight does not lie where the graph says.
    """
    model = onnx.load(package.graph, load_external_data=False)
    outside = [
        tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL
    ]
    ranges = [_range(tensor) for tensor in outside]
    total = sum(length for _, _, length in ranges)
    if total > min(most, PROTOBUF_LIMIT):
        raise RuntimeUnavailable(
            f"the graph's weights are {total / 1e9:.1f} GB, and this column takes "
            f"{min(most, PROTOBUF_LIMIT) / 1e9:.1f} GB at most"
        )
    files = {entry.name: package.weight_path(entry) for entry in package.manifest.weights.files}
    for tensor, (location, offset, length) in zip(outside, ranges, strict=True):
        if location not in files:
            raise PackageError(
                f"{package.graph}: {tensor.name} lies in {location[:80]!r}, which is none of the "
                "manifest's weight files; export the package again"
            )
        tensor.raw_data = _bytes(files[location], offset, length)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return model


def _range(tensor: TensorProto) -> tuple[str, int, int]:
    """Return file, offset and length of an external tensor."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        return entries["location"], int(entries.get("offset", "0")), int(entries["length"])
    except (KeyError, ValueError) as error:
        raise PackageError(f"{tensor.name}: its external data are not as an export has them") from (
            error
        )


def _bytes(path: Path, offset: int, length: int) -> bytes:
    if offset < 0 or length < 0:
        raise PackageError(f"{path}: found a weight at {offset} of {length} bytes")
    with open_regular(path, PackageError) as file:
        file.seek(offset)
        content = file.read(length)
    if len(content) != length:
        raise PackageError(f"{path}: cut off: found {len(content)} of {length} bytes at {offset}")
    return content


def in_standard_words(model: ModelProto) -> ModelProto:
    """Return a model for a runtime that knows neither functions, nor TensorScatter, nor inputs that
    are left out at the end by an empty name.

    Matches every function call, and every TensorScatter along the third axis, which are all that an
    export writes.

    Raises:
        PackageError: a TensorScatter has another axis.
    """
    plain = onnx.inliner.inline_local_functions(model)
    for graph in list(_graphs(plain.graph)):
        nodes: list[NodeProto] = []
        for index, node in enumerate(graph.node):
            while node.input and not node.input[-1]:
                node.input.pop()
            nodes += _scatter(node, index) if node.op_type == "TensorScatter" else [node]
        del graph.node[:]
        graph.node.extend(nodes)
    return plain


def _scatter(node: NodeProto, index: int) -> Iterator[NodeProto]:
    """Yield what writes `update` (B, K, S, D) into `past` (B, K, C, D) from slot `start` (B) on:
    slot (start + s) mod C where the mode is circular.
    """
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if attributes.get("axis", -2) not in (-2, 2):
        raise PackageError(
            f"{node.name}: TensorScatter along axis {attributes['axis']}, expected 2"
        )
    past, update, *rest = node.input
    start = rest[0] if rest else ""

    def name(what: str) -> str:
        return f"{node.name or 'TensorScatter'}.{index}.{what}"

    def constant(what: str, value: int | list[int]) -> NodeProto:
        if isinstance(value, int):
            return helper.make_node("Constant", [], [name(what)], value_int=value)
        return helper.make_node("Constant", [], [name(what)], value_ints=value)

    def made(op: str, inputs: list[str], what: str, **more: Any) -> NodeProto:
        return helper.make_node(op, inputs, [name(what)], **more)

    yield constant("zero", 0)
    yield constant("one", 1)
    yield constant("columns_axis", [1])
    yield constant("other_axes", [1, 3])
    yield made("Shape", [update], "new", start=2, end=3)
    yield made("Squeeze", [name("new")], "count")
    yield made("Range", [name("zero"), name("count"), name("one")], "columns")  # (S)
    slots = name("columns")
    if start:
        yield made("Unsqueeze", [start, name("columns_axis")], "start")  # (B, 1)
        yield made("Add", [name("start"), name("columns")], "slots")  # (B, S)
        slots = name("slots")
    else:
        yield constant("row_axis", [0])
        yield made("Unsqueeze", [slots, name("row_axis")], "slots")  # (1, S)
        slots = name("slots")
    if attributes.get("mode", b"linear") == b"circular":
        yield made("Shape", [past], "capacity", start=2, end=3)
        yield made("Mod", [slots, name("capacity")], "wrapped")
        slots = name("wrapped")
    yield made("Unsqueeze", [slots, name("other_axes")], "indices")  # (B, 1, S, 1)
    yield made("Shape", [update], "shape")
    yield made("Expand", [name("indices"), name("shape")], "everywhere")  # (B, K, S, D)
    scatter = helper.make_node(
        "ScatterElements", [past, name("everywhere"), update], list(node.output), axis=2
    )
    yield scatter


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and all those inside its nodes."""
    waiting = [graph]
    while waiting:
        here = waiting.pop()
        yield here
        waiting += _inside(here.node)


def _inside(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs

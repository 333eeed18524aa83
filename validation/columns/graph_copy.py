"""Copies of a package's graph for other runtimes: in one file with its weights, and for some in the
words that they know.
"""

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import ModelProto, TensorProto

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.exporter.standard_ops import in_standard_ops
from gptoss_onnx.files import open_regular
from gptoss_onnx.package import Package

# What onnx_ir raises for calls and bodies that do not fit each other.
_NOT_OURS = (ir.passes.PassError, ir.passes.InvariantError, KeyError, RuntimeError, ValueError)
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
    """Return a model for a runtime that knows neither functions, nor TensorScatter: what
    `export --target openvino` makes of a graph.

    Raises:
        PackageError: the graph is none that an export writes.
    """
    try:
        return ir.to_proto(in_standard_ops(ir.from_proto(model)))
    except _NOT_OURS as error:
        text = " ".join(str(error).split())[:300]
        raise PackageError(f"its functions cannot be inlined: {text}") from error

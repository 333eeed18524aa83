"""Compare packages that tests have changed with the checkpoints that they were exported from."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from gptoss_onnx.manifest import MANIFEST_NAME, Manifest
from gptoss_onnx.package import GRAPH_FILE, Package
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.validation.comparison.both import compare
from gptoss_onnx.validation.report.document import Comparison, Finding

QUIET = LoggedProgress(logging.getLogger(__name__))


def compared(folder: Path, checkpoint: Path) -> dict[str, Comparison]:
    """Return the comparisons of a package, by name; its files need not have been checked."""
    with open_checkpoint(checkpoint) as opened:
        found = compare(Package(folder, Manifest.read(folder)), opened, QUIET)
    return {comparison.name: comparison for comparison in found}


def findings(folder: Path, checkpoint: Path, name: str) -> tuple[Finding, ...]:
    """Return what one of the comparisons found."""
    return compared(folder, checkpoint)[name].findings


def edit_graph(folder: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change a package's graph, which may lie in a linked file."""
    path = folder / GRAPH_FILE
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.unlink()
    path.write_bytes(model.SerializeToString())


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a package's manifest."""
    path = folder / MANIFEST_NAME
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def node(model: onnx.ModelProto, layer: int, op: str) -> onnx.NodeProto:
    """Return the one node of an op in a layer."""
    (found,) = (n for n in model.graph.node if n.op_type == op and f"layers.{layer}." in n.name)
    return found


def attribute(holder: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    """Return an attribute of a node."""
    (found,) = (entry for entry in holder.attribute if entry.name == name)
    return found


def entry(tensor: onnx.TensorProto, key: str) -> onnx.StringStringEntryProto:
    """Return an entry of a tensor's external data."""
    (found,) = (entry for entry in tensor.external_data if entry.key == key)
    return found


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """Return an initializer of the main graph."""
    (found,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return found

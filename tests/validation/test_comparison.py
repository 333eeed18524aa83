"""A package's graph is compared with a fresh export: nothing differs in healthy ones, and what
differs in others is named by layer and op.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation.comparison.findings import LISTED
from support.compared import (
    attribute,
    compared,
    edit_graph,
    edit_manifest,
    entry,
    findings,
    initializer,
    node,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "linked": {},
    "referred to": {"weights": "reference"},
    "int8": {"dense": "int8", "weights": "copy"},
    "float16 cache": {"kv_dtype": "float16"},
    "ort": {"target": "ort"},
    "ort, chunks, copied": {"target": "ort", "dense": "checkpoint", "weights": "copy"},
    "ort, chunks, linked": {"target": "ort", "dense": "checkpoint"},
    "ort, int8 experts": {"target": "ort", "experts": "int8"},
    "ort, int4 experts": {"target": "ort", "experts": "int4"},
    "cuda": {"target": "ort", "provider": "cuda"},
}


def assert_healthy(folder: Path, checkpoint: Path) -> None:
    for comparison in compared(folder, checkpoint).values():
        assert (comparison.state, comparison.findings) == ("passed", ()), comparison


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_nothing_differs_in_a_healthy_package(
    options: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    assert_healthy(export(tiny_checkpoint, tmp_path / "package", **options).folder, tiny_checkpoint)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("gpt2", {"dense": "int8"}),
        ("bloom", {"target": "ort"}),
        ("qwen3_moe", {"weights": "copy"}),
        ("mixtral", {"target": "ort"}),
    ],
)
def test_nothing_differs_whatever_the_architecture(
    model_type: str, options: dict[str, Any], tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type))
    package = export(tmp_path / "checkpoint", tmp_path / "package", **options)
    assert_healthy(package.folder, tmp_path / "checkpoint")


@pytest.fixture
def folder(tiny_package: Package, tmp_path: Path) -> Path:
    """A package to be spoilt; its weights are a copy."""
    return Path(shutil.copytree(tiny_package.folder, tmp_path / "package"))


def _attribute(model: onnx.ModelProto) -> None:
    attribute(node(model, 2, "MoEDispatchMXFP4"), "alpha").f = 1.703125


def _missing_attribute(model: onnx.ModelProto) -> None:
    experts = node(model, 1, "MoEDispatchMXFP4")
    experts.attribute.remove(attribute(experts, "limit"))


def _swapped(model: onnx.ModelProto) -> None:
    attention = node(model, 1, "SinkAttention")
    attention.input[1], attention.input[2] = attention.input[2], attention.input[1]


def _removed(model: onnx.ModelProto) -> None:
    gone = node(model, 0, "MoEDispatchMXFP4")
    for reader in model.graph.node:
        names = [gone.input[0] if name == gone.output[0] else name for name in reader.input]
        reader.input[:] = names
    model.graph.node.remove(gone)


def _added(model: onnx.ModelProto) -> None:
    experts = node(model, 2, "MoEDispatchMXFP4")
    name = experts.name.replace("MoEDispatchMXFP4", "Relu")
    value = experts.output[0]
    model.graph.node.add(op_type="Relu", name=name, input=[value], output=["positive"])


def _constant(model: onnx.ModelProto) -> None:
    tensor = next(
        tensor
        for tensor in model.graph.initializer
        if tensor.data_location != tensor.EXTERNAL and tensor.data_type == tensor.FLOAT
    )
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[-1] *= 2
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _body(model: onnx.ModelProto) -> None:
    body = next(function for function in model.functions if function.name == "Linear")
    attribute(body.node[-1], "transB").i = 0


def _body_constant(model: onnx.ModelProto) -> None:
    body = next(function for function in model.functions if function.name == "SinkAttention")
    constants = (n for n in body.node if n.op_type == "Constant" and n.attribute[0].HasField("t"))
    tensor = next(n.attribute[0].t for n in constants)
    changed = onnx.numpy_helper.to_array(tensor) + np.array(1, onnx.numpy_helper.to_array(tensor).dtype)
    tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))


def _body_gone(model: onnx.ModelProto) -> None:
    model.functions.remove(next(f for f in model.functions if f.name == "Linear"))


def _dtype(model: onnx.ModelProto) -> None:
    name = node(model, 1, "MoEDispatchMXFP4").input[2]
    initializer(model, name).data_type = onnx.TensorProto.INT8


def _opset(model: onnx.ModelProto) -> None:
    next(entry for entry in model.opset_import if not entry.domain).version -= 1


def _output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"


def _outputs(model: onnx.ModelProto) -> None:
    names = [value.name for value in model.graph.output]
    for value, name in zip(model.graph.output, [names[0], names[2], names[1], *names[3:]], strict=True):
        value.name = name


# A change → where it is found and what, what was found and what was expected, as far as they go.
CHANGES: dict[Callable[[onnx.ModelProto], None], tuple[str, str, str, str]] = {
    _attribute: ("layers.2 MoEDispatchMXFP4", "alpha", "1.703125", "1.702"),
    _missing_attribute: ("layers.1 MoEDispatchMXFP4", "limit", "missing", "7"),
    _swapped: ("layers.1 SinkAttention", "input 1 (key)", "model.layers.1.self_attn", "model"),
    _removed: ("layers.0 MoEDispatchMXFP4", "node", "missing", "ai.gptoss.MoEDispatchMXFP4 model"),
    _added: ("layers.2 Relu", "node", "Relu model.layers.2.mlp.Relu", "none"),
    _constant: ("", "", "", ""),
    _body: ("body of Linear", "return_val Gemm: transB", "0", "1"),
    _body_constant: ("body of SinkAttention", "", "", ""),
    _body_gone: ("body of Linear", "function", "missing", "a function"),
    _dtype: ("layers.1 MoEDispatchMXFP4", "model.layers.1.mlp.experts.", "int8", "uint8"),
    _opset: ("graph", "opset of ai.onnx", "23", "24"),
    _output: ("graph", "output logits", "float[rows, ", "float[batch, "),
    _outputs: ("graph", "order of outputs", "['logits', 'present.0.value'", "['logits', 'present.0.k"),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_differs_is_named(
    change: Callable[[onnx.ModelProto], None], folder: Path, tiny_checkpoint: Path
) -> None:
    edit_graph(folder, change)
    comparison = compared(folder, tiny_checkpoint)["graph"]
    assert comparison.state == "failed"
    first = comparison.findings[0]
    texts = (first.where, first.what, first.found, first.expected)
    for text, begin in zip(texts, CHANGES[change], strict=True):
        assert text.startswith(begin), first

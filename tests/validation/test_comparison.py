"""A package's graph is compared with a fresh export: nothing differs in healthy ones, and what
differs in others is named by layer and op.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.package import GRAPH_FILE
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation.comparison.findings import LISTED
from support.compared import (
    attribute,
    compared,
    edit_graph,
    edit_manifest,
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
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type, layers=2))
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
    tensor = initializer(model, "inv_freq")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[3] *= 2
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _body(model: onnx.ModelProto) -> None:
    body = next(function for function in model.functions if function.name == "Linear")
    attribute(body.node[-1], "transB").i = 0


def _body_constant(model: onnx.ModelProto) -> None:
    body = next(function for function in model.functions if function.name == "DecodeMXFP4")
    tensor = attribute(body.node[0], "value").t
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[[3, 5]] = values[[5, 3]]
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


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
    for value, name in zip(
        model.graph.output, [names[0], names[2], names[1], *names[3:]], strict=True
    ):
        value.name = name


# A change → where it is found and what, what was found and what was expected, as far as they go.
CHANGES: dict[Callable[[onnx.ModelProto], None], tuple[str, str, str, str]] = {
    _attribute: ("layers.2 MoEDispatchMXFP4", "alpha", "1.703125", "1.702"),
    _missing_attribute: ("layers.1 MoEDispatchMXFP4", "limit", "missing", "7"),
    _swapped: ("layers.1 SinkAttention", "input 1 (key)", "model.layers.1.self_attn", "model"),
    _removed: ("layers.0 MoEDispatchMXFP4", "node", "missing", "ai.gptoss.MoEDispatchMXFP4 model"),
    _added: ("layers.2 Relu", "node", "Relu model.layers.2.mlp.Relu", "none"),
    _constant: ("Mul", "inv_freq: element [3]", "", ""),
    _body: ("body of Linear", "return_val Gemm: transB", "0", "1"),
    _body_constant: ("body of DecodeMXFP4", "tmp Constant: value: element [3", "", ""),
    _body_gone: ("body of Linear", "function", "missing", "a function"),
    _dtype: ("layers.1 MoEDispatchMXFP4", "model.layers.1.mlp.experts.", "int8", "uint8"),
    _opset: ("graph", "opset of ai.onnx", "23", "24"),
    _output: ("graph", "output logits", "float[rows, ", "float[batch, "),
    _outputs: (
        "graph",
        "order of outputs",
        "['logits', 'present.0.value'",
        "['logits', 'present.0.k",
    ),
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


def test_the_body_of_a_scan_is_compared(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = export(
        tiny_checkpoint, tmp_path / "package", target="ort", dense="checkpoint", weights="copy"
    ).folder

    def change(model: onnx.ModelProto) -> None:
        scan = next(
            n for n in model.graph.node if n.name.endswith("layers.1.self_attn.q_proj.Scan")
        )
        gemm = next(n for n in attribute(scan, "body").g.node if n.op_type == "Gemm")
        attribute(gemm, "transB").i = 0

    edit_graph(folder, change)
    (finding,) = findings(folder, tiny_checkpoint, "graph")
    assert finding.where == "layers.1 self_attn.q_proj.Scan"
    assert finding.what.startswith("body: ") and finding.what.endswith(" Gemm: transB")


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str, str, str]] = {
    "a window": (
        lambda document: document["cache"][2].update(window=7),
        "layers.2 cache",
        "manifest.json window",
        "7",
    ),
    "end tokens": (
        lambda document: document.update(eos_tokens=[5]),
        "manifest.json",
        "eos_tokens",
        "(5,)",
    ),
    "what it offers": (
        lambda document: document.update(unsupported=["rewinding"]),
        "manifest.json",
        "unsupported",
        "('rewinding',)",
    ),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_what_differs_in_the_manifest_is_named(
    kind: str, folder: Path, tiny_checkpoint: Path
) -> None:
    change, where, what, found = MANIFESTS[kind]
    edit_manifest(folder, change)
    (finding,) = findings(folder, tiny_checkpoint, "graph")
    assert (finding.where, finding.what, finding.found) == (where, what, found)


def test_options_that_do_not_go_together_are_not_compared(
    folder: Path, tiny_checkpoint: Path
) -> None:
    edit_manifest(folder, lambda document: document["options"].update(provider="cuda"))
    comparison = compared(folder, tiny_checkpoint)["graph"]
    assert comparison.state == "failed"
    assert "--provider cuda" in comparison.findings[0].found


def test_another_exporter_is_named(folder: Path, tiny_checkpoint: Path) -> None:
    edit_manifest(folder, lambda document: document.update(exporter="gptoss-onnx 0.0.1"))
    comparison = compared(folder, tiny_checkpoint)["graph"]
    assert comparison.state == "passed"
    assert comparison.note.startswith(
        "written by gptoss-onnx 0.0.1, compared with what gptoss-onnx"
    )


def test_what_is_printed_is_bounded_and_harmless(folder: Path, tiny_checkpoint: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        for number in range(50):
            name = "\x1b[31m" + "x" * 1000 + str(number)
            model.graph.node.add(op_type="Relu", name=name, input=["logits"], output=[name])

    edit_graph(folder, spoil)
    comparison = compared(folder, tiny_checkpoint)["graph"]
    assert len(comparison.findings) == LISTED
    assert comparison.note == "50 differences, of which the first 20 are listed"
    for finding in comparison.findings:
        assert str(finding).isprintable()
        assert len(str(finding)) < 1000


def test_a_graph_whose_texts_are_not_unicode_is_refused(
    folder: Path, tiny_checkpoint: Path
) -> None:
    """Protocol buffers give such texts as bytes."""
    path = folder / GRAPH_FILE
    content = path.read_bytes().replace(b"past_lengths", b"past_\xffengths")
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"not an ONNX model .* is not Unicode"):
        compared(folder, tiny_checkpoint)

"""`export --target openvino`: what its graph has and lacks, and who runs it.

In OpenVINO it is run by tests/clients/test_openvino.py.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from gptoss_onnx.bench.footprint import read_inside
from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.exporter.standard_ops import in_standard_ops
from gptoss_onnx.inspect.findings import Findings
from gptoss_onnx.inspect.summary import summarize
from gptoss_onnx.layer_names import layer_of
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.graph_file import GraphFile
from gptoss_onnx.validation import validate
from support.tolerances import PACKAGE_LOGITS


@pytest.fixture(scope="module")
def package(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("openvino") / "package"
    return export(tiny_checkpoint, folder, target="openvino")


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield all nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_op_is_a_standard_one(model_type: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type), seed=5)
    for target in ("portable", "openvino"):
        export(tmp_path / "checkpoint", tmp_path / target, target=target)
    model = onnx.load(tmp_path / "openvino" / "model.onnx", load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 24)]
    assert not model.functions
    nodes = list(nodes_of(model.graph))
    assert "TensorScatter" not in {node.op_type for node in nodes}
    assert all(not node.domain and (not node.input or node.input[-1]) for node in nodes)
    assert max(Counter(node.name for node in nodes).values()) == 1
    written = Counter(name for node in nodes for name in node.output if name)
    assert max(written.values()) == 1
    tokens = list(range(3, 33))
    with Session.open(tmp_path / "portable", "portable", threads=1) as session:
        expected = session.score(tokens, chunk=7)
    with Session.open(tmp_path / "openvino", threads=1) as session:
        assert session.kernels == "portable"
        np.testing.assert_allclose(session.score(tokens, chunk=7), expected, atol=PACKAGE_LOGITS)


def test_nodes_of_a_body_are_named_after_its_call(package: Package) -> None:
    model = onnx.load(package.graph, load_external_data=False)
    scatters = [node for node in model.graph.node if node.op_type == "ScatterElements"]
    layers = len(package.manifest.cache)
    assert Counter(layer_of(node.name) for node in scatters) == dict.fromkeys(range(layers), 2)
    assert scatters[0].name == "model.layers.0.self_attn.SinkAttention.ScatterElements"
    (loop,) = (
        node
        for node in model.graph.node
        if node.name.endswith("layers.1.mlp.MoEDispatchMXFP4.Loop")
    )
    (body,) = (attribute.g for attribute in loop.attribute if attribute.HasField("g"))
    assert {layer_of(node.name) for node in body.node} == {1}


def test_weights_are_linked_and_the_manifest_says_for_what(package: Package) -> None:
    manifest = package.manifest
    assert (manifest.target, manifest.weights.mode, manifest.ops) == ("openvino", "link", ())
    assert manifest.options is not None
    assert manifest.options.target == "openvino"
    (entry,) = manifest.weights.files
    assert (package.folder / entry.name).stat().st_nlink > 1
    text = summarize(Findings.of(package.folder))
    assert "target openvino" in text
    assert "standard ONNX ops alone, without functions" in text
    assert "not offered: activations bf16, activations int8" in text


def test_validate_judges_it_as_any_other(package: Package, tiny_checkpoint: Path) -> None:
    report = validate(package.folder, tiny_checkpoint)
    assert report.passed, report.table()
    assert [column.name for column in report.columns if column.runs] == ["portable"]
    assert {comparison.name: comparison.state for comparison in report.comparisons} == {
        "graph": "passed",
        "weights": "passed",
    }


def test_validate_finds_a_changed_node(tiny_checkpoint: Path, tmp_path: Path) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", target="openvino")
    model = onnx.load(package.graph, load_external_data=False)
    node = next(
        node for node in model.graph.node if "layers.2" in node.name and node.op_type == "Exp"
    )
    node.op_type = "Abs"
    onnx.save(model, package.graph)
    report = validate(package.folder, tiny_checkpoint)
    assert report.exit_code == 1
    assert "layers.2 self_attn.SinkAttention.Exp" in report.table()


def test_there_are_no_native_kernels_for_it(package: Package) -> None:
    for arguments in ({"kernels": "native"}, {"activations": "int8"}):
        with pytest.raises(RuntimeUnavailable, match="target openvino has none of their ops"):
            Session.open(package.folder, **arguments)  # type: ignore[arg-type]  # by name


def test_what_loops_read_sets_no_floor(package: Package, tiny_package: Package) -> None:
    """Experts: the loop over those that a token chose is a subgraph."""
    assert read_inside(GraphFile.read(tiny_package.graph)) == 0
    assert read_inside(GraphFile.read(package.graph)) > 0


@pytest.mark.parametrize(("attributes", "inputs"), [({"axis": 1}, 3), ({}, 2)])
def test_other_scatters_are_refused(attributes: dict[str, int], inputs: int) -> None:
    values = [ir.Value(name=name) for name in ("past", "update", "start")]
    node = ir.node("TensorScatter", values[:inputs], attributes, name="scatter")
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": 24})
    with pytest.raises(PackageError, match=r"scatter: TensorScatter with .*, expected write_ind"):
        in_standard_ops(ir.Model(graph, ir_version=11))

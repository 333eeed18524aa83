"""What a graph says about itself: in each target, alike for alike checkpoints, without a path."""

import shutil
from pathlib import Path

import onnx
import onnxruntime
import pytest

from gptoss_onnx.exporter import Package, export


def _model(package: Package) -> onnx.ModelProto:
    return onnx.load(package.graph, load_external_data=False)


@pytest.mark.parametrize("name", ["demo_package", "ort_package"])
def test_model_graph_inputs_and_outputs_have_a_text(
    name: str, request: pytest.FixtureRequest
) -> None:
    package = request.getfixturevalue(name)
    model, manifest = _model(package), package.manifest
    assert manifest.model["model_type"] in model.doc_string
    assert f"{len(manifest.cache)} layers" in model.doc_string
    for use in manifest.ops:
        assert f"{use.count} {use.name}" in model.graph.doc_string
    values = [*model.graph.input, *model.graph.output]
    assert [value.name for value in values if not value.doc_string.endswith(".")] == []


def test_metadata_agree_with_the_manifest(demo_package: Package) -> None:
    manifest = demo_package.manifest
    found = {entry.key: entry.value for entry in _model(demo_package).metadata_props}
    assert found == {
        "architecture": manifest.model["model_type"],
        "exporter": manifest.exporter,
        "kv_dtype": manifest.kv_dtype,
        "layers": f"{len(manifest.cache)} layers",
        "package_format": "gptoss-onnx 2",
        "source": manifest.weights.layout,
        "target": manifest.target,
    }
    session = onnxruntime.InferenceSession(demo_package.graph, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == found


def test_alike_checkpoints_get_the_same_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    graphs = []
    for name in ("one", "another"):
        checkpoint = tmp_path / name / "a-checkpoint-of-somebody"
        shutil.copytree(tiny_checkpoint, checkpoint)
        graphs.append(export(checkpoint, tmp_path / name / "package").graph.read_bytes())
    assert graphs[0] == graphs[1]
    assert b"somebody" not in graphs[0]
    assert str(tmp_path).encode() not in graphs[0]


def test_a_stage_says_which_layers_it_has(tiny_checkpoint: Path, tmp_path: Path) -> None:
    package = export(tiny_checkpoint, tmp_path / "stage", layers=(0, 1))
    model = _model(package)
    assert str(package.manifest.stage) in model.doc_string
    outputs = {value.name: value.doc_string for value in model.graph.output}
    assert outputs["next_hidden"] == "What the stage after this one takes."

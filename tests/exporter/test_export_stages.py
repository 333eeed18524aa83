"""`export --layers A:B`: some layers of a checkpoint, in a package that runs beside the others."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.layer_names import layer_of
from gptoss_onnx.manifest import Manifest, Stage
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.runtime import Session, open_package
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.comparison.both import compare
from support.checkpoints import shard_by_layer
from support.command_line import done, run

logger = logging.getLogger(__name__)
OPTIONS: list[dict[str, Any]] = [{}, {"dense": "int8"}, {"target": "ort"}, {"weights": "reference"}]


def graph_of(package: Package) -> onnx.GraphProto:
    return onnx.load(package.graph, load_external_data=False).graph


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_middle_stage_takes_and_gives_what_layers_hand_on(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", layers=(1, 3), **options)
    assert open_package(package.folder).manifest == package.manifest
    assert package.manifest.stage == Stage(1, 3, 4)
    graph = graph_of(package)
    inputs, outputs = ([entry.name for entry in side] for side in (graph.input, graph.output))
    assert outputs[0] == "next_hidden"
    assert "hidden" in inputs
    assert "logit_positions" not in inputs
    caches = {layer_of(name) for name in (*inputs, *outputs)} - {None}
    assert caches == {1, 2}
    assert {layer_of(entry.name) for entry in graph.initializer} - {None} == {1, 2}
    assert not any("embed" in node.name or "lm_head" in node.name for node in graph.node)


def test_the_ends_have_what_is_theirs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = graph_of(export(tiny_checkpoint, tmp_path / "first", layers=(0, 1)))
    last = graph_of(export(tiny_checkpoint, tmp_path / "last", layers=(1, 4)))
    assert "hidden" not in [entry.name for entry in first.input]
    assert first.output[0].name == "next_hidden"
    assert any("embed_tokens" in node.name for node in first.node)
    assert last.output[0].name == "logits"
    assert any("lm_head" in node.name for node in last.node)
    hidden = next(entry for entry in last.input if entry.name == "hidden")
    assert hidden.type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_stage_needs_the_files_of_its_layers_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """So that a machine of its own need not have the others."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    names = shard_by_layer(folder)
    package = export(folder, tmp_path / "package", layers=(2, 3))
    assert [entry.name for entry in package.manifest.weights.files] == [names[2]]


def test_a_range_of_all_layers_is_the_whole_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", layers=(0, 4))
    assert package.manifest.stage is None
    assert "stage" not in json.loads((package.folder / "manifest.json").read_text())


@pytest.mark.parametrize("layers", [(0, 5), (2, 2), (3, 1), (-1, 2)])
def test_other_ranges_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, layers: tuple[int, int]
) -> None:
    with pytest.raises(InputError, match=r"--layers .*: expected A:B with 0 ≤ A < B ≤ 4"):
        export(tiny_checkpoint, tmp_path / "package", layers=layers)
    assert not (tmp_path / "package").exists()


def test_what_runs_whole_models_refuses_a_stage(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = export(tiny_checkpoint, tmp_path / "package", layers=(0, 2)).folder
    refused = r"found layers 0 to 1 of 4, expected all of them: run it beside the others"
    for run_whole in (Session.open, lambda package: validate(package, tiny_checkpoint)):
        with pytest.raises(PackageError, match=refused) as caught:
            run_whole(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_stage_is_compared_with_a_fresh_one(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", layers=(2, 4), **options)
    for spoilt in (False, True):
        if spoilt:
            model = onnx.load(package.graph, load_external_data=False)
            node = next(node for node in model.graph.node if "layers.3" in node.name)
            node.op_type = "Neg"
            onnx.save(model, package.graph)
        with open_checkpoint(tiny_checkpoint) as checkpoint:
            found = compare(open_package(package.folder), checkpoint, LoggedProgress(logger))
        states = [comparison.state for comparison in found]
        assert states == ["failed" if spoilt else "passed", "passed"]


@pytest.mark.parametrize(
    "stage",
    [
        {"first": 1, "end": 3, "layers": 2},
        {"first": 2, "end": 2, "layers": 4},
        {"first": 0, "end": 3, "layers": 4},
        {"first": -1, "end": 1, "layers": 4},
        {"first": 0, "end": 2},
        {"first": 0, "end": 2, "layers": 10**9},
        "0:2",
    ],
    ids=str,
)
def test_a_stage_that_is_none_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, stage: object
) -> None:
    folder = export(tiny_checkpoint, tmp_path / "package", layers=(0, 2)).folder
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stage": stage}))
    with pytest.raises(PackageError, match="malformed"):
        Manifest.read(folder)


def test_the_command_line_takes_a_range(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "package"
    said = run("export", tiny_checkpoint, "--output", output, "--layers", "0:2")
    assert "layers 0 to 1 of 4" in said.stdout
    assert "a stage, which runs beside the others: layers 0 to 1 of 4" in done("inspect", output)
    wrong = run("export", tiny_checkpoint, "--output", output, "--layers", "0-2")
    assert wrong.exit_code == 2
    assert "expected A:B" in wrong.stderr

"""Experts on MXFP4 are checked by a known answer, at export and when a package is opened."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.custom_ops.mxfp4 import mxfp4_by_column
from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.exporter import Package, export, known_answer
from gptoss_onnx.package import EXPERT_CHECK_FILE, ORT_WEIGHTS
from gptoss_onnx.runtime import Session, expert_check
from gptoss_onnx.runtime.expert_node import ExpertNode

NODE = "model.layers.0.mlp.QMoE"


@pytest.fixture(scope="module")
def copied(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that has all its weights in a file of its own."""
    folder = tmp_path_factory.mktemp("known") / "package"
    return export(tiny_checkpoint, folder, target="ort", weights="copy").folder


@pytest.fixture
def folder(copied: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(copied, tmp_path / "package"))


def rewrite(folder: Path, suffix: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the bytes of the tensors whose names end so; the file keeps its header."""
    path = folder / ORT_WEIGHTS
    tensors = load_file(path)
    header = path.read_bytes()[: int.from_bytes(path.read_bytes()[:8], "little") + 8]
    for name in [name for name in tensors if name.endswith(suffix)]:
        changed = change(tensors[name].clone())
        assert not torch.equal(changed, tensors[name])
        tensors[name] = changed
    content = bytearray(path.read_bytes())
    for name, entry in json.loads(header[8:]).items():
        if name in tensors and name.endswith(suffix):
            begin, end = (len(header) + offset for offset in entry["data_offsets"])
            content[begin:end] = tensors[name].contiguous().numpy().tobytes()
    path.write_bytes(content)


BROKEN: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "blocks by columns": (
        "_blocks",
        lambda experts: torch.stack([mxfp4_by_column(e) for e in experts]).reshape(experts.shape),
    ),
    "scales twice as large": ("_scales", lambda scales: scales + 1),
    "scales one place further": ("_scales", lambda scales: scales.flatten().roll(1)),
    "low and high half of a byte exchanged": ("_blocks", lambda b: (b << 4) | (b >> 4)),
}


def test_a_sound_package_opens(folder: Path) -> None:
    with Session.open(folder) as session:
        assert np.isfinite(session.score([1, 2, 3])).all()


@pytest.mark.parametrize(("suffix", "change"), BROKEN.values(), ids=BROKEN)
def test_weights_in_another_order_are_refused(
    folder: Path, suffix: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    rewrite(folder, suffix, change)
    with pytest.raises(
        RuntimeUnavailable,
        match=rf"ONNX Runtime {onnxruntime.__version__} gives '{NODE}' a result that is off by "
        r"[^\n]*; use ONNX Runtime 1.32, or export with --experts int8$",
    ):
        Session.open(folder)


def change(folder: Path, **entries: Any) -> None:
    path = folder / EXPERT_CHECK_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda folder: (folder / EXPERT_CHECK_FILE).unlink(), "no such file, but"),
    "no JSON": (lambda folder: (folder / EXPERT_CHECK_FILE).write_text("{"), "JSON"),
    "another node": (lambda folder: change(folder, node="x"), "found the answer of 'x', expected"),
    "no places": (lambda folder: change(folder, places=[]), "found something else than"),
    "places outside": (
        lambda folder: change(folder, places=[0, 99999], answers=[[0, 1], [0, 1]]),
        "expected that of",
    ),
    "places of another type": (lambda folder: change(folder, places=["0"]), "found something else"),
    "too few answers": (lambda folder: change(folder, answers=[[1.0]]), "found something else"),
    "ragged answers": (lambda folder: change(folder, answers=[[1.0], []]), "found something else"),
    "huge places": (lambda folder: change(folder, places=[10**30]), "found something else"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_answer_is_one_line(
    folder: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(folder)
    with pytest.raises(PackageError, match=rf"{EXPERT_CHECK_FILE}: [^\n]*{message}[^\n]*$"):
        Session.open(folder)


def test_an_answer_that_is_no_number_is_refused(folder: Path) -> None:
    change(folder, answers=[[float("nan")] * 64] * 2)
    with pytest.raises((RuntimeUnavailable, PackageError), match=r"^[^\n]+$"):
        Session.open(folder)


def test_a_graph_without_the_weights_of_its_node_is_refused(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    node = next(node for node in model.graph.node if node.op_type == "QMoE")
    node.input[2] = "input_ids"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match="found no initializer 'input_ids', which QMoE multi"):
        Session.open(folder)


def test_the_model_of_one_node_is_valid_onnx(ort_package: Package) -> None:
    node = ExpertNode.find(ort_package)
    assert node is not None
    model = onnx.load_model_from_string(node.model(2))
    assert [entry.op_type for entry in model.graph.node] == ["QMoE"]
    whole = onnx.load(ort_package.graph, load_external_data=False)
    assert model.graph.node[0] == next(n for n in whole.graph.node if n.op_type == "QMoE")
    weights = {tensor.name: tensor for tensor in whole.graph.initializer}
    assert len(model.graph.initializer) == 4
    assert all(tensor == weights[tensor.name] for tensor in model.graph.initializer)
    assert (model.ir_version, model.opset_import) == (whole.ir_version, whole.opset_import)


def test_an_onnxruntime_of_another_layout_is_noticed_at_export(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = expert_check._run
    monkeypatch.setattr(expert_check, "_run", lambda *given: run(*given) * 1.01)
    with pytest.raises(RuntimeUnavailable, match=r"off by 1.0e-02, expected 1e-03 at most"):
        export(tiny_checkpoint, tmp_path / "package", target="ort")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", ["1.28.0", "1.31.1"])
def test_an_older_onnxruntime_is_refused_by_name(
    copied: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    message = rf"this package needs ONNX Runtime 1.32, found {version}: pip install [^\n]*int8$"
    with pytest.raises(RuntimeUnavailable, match=message):
        Session.open(copied)


@pytest.mark.parametrize("version", ["1.32.0", "1.100.2", "2.0.0.dev20261126"])
def test_versions_are_compared_as_numbers(
    copied: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    Session.open(copied).close()


def test_an_export_without_onnxruntime_says_so(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def missing() -> None:
        raise RuntimeUnavailable("ONNX Runtime: it is not installed")

    monkeypatch.setattr(known_answer, "load_onnxruntime", missing)
    with caplog.at_level(logging.WARNING):
        package = export(tiny_checkpoint, tmp_path / "package", target="ort")
    assert "experts not compared with ONNX Runtime's: ONNX Runtime: it is not" in caplog.text
    Session.open(package.folder).close()


def test_a_mixture_of_zeros_has_an_answer_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """As a checkpoint of holes has, made to measure the shapes of a large model."""
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "model.safetensors"
    zeros = {name: t * 0 if "_proj_" in name else t for name, t in load_file(path).items()}
    save_file(zeros, path)
    package = export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    Session.open(package.folder).close()

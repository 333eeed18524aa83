"""Which folders of other exporters are recognised, and what is refused in one line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from gptoss_onnx.errors import GptOssError, InputError, PackageError, ParityError
from gptoss_onnx.reference import DecoderConfig, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.foreign.recognize import recognize
from support.foreign_graph import write_checkpoint, write_graph
from support.stranger_graph import external


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("foreign") / "checkpoint")


@pytest.fixture(scope="module")
def graph(checkpoint: Path) -> Path:
    with open_checkpoint(checkpoint) as opened:
        config: DecoderConfig = opened.config
    return write_graph(checkpoint, config, checkpoint.parent / "graph" / "model.onnx")


def as_genai(folder: Path, **changes: Any) -> None:
    decoder = {"filename": "model.onnx", **changes}
    document = {"model": {"type": "mistral", "decoder": decoder}}
    (folder / "genai_config.json").write_text(json.dumps(document))


def as_transformers(folder: Path, **changes: Any) -> None:
    entry = {"file": "model.onnx", "metadata": {"packages": {"transformers": "5.23.0"}}}
    document = {"export_format": "onnx", "components": {"model": entry}, **changes}
    (folder / "export.json").write_text(json.dumps(document))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "plain": (lambda folder: None, "a plain graph"),
    "optimum": (
        lambda folder: (folder / "config.json").write_text("{}"),
        "a graph with config.json, as optimum-onnx writes",
    ),
    "genai": (as_genai, "onnxruntime-genai (mistral)"),
    "transformers": (as_transformers, "transformers.exporters 5.23.0"),
    "in a subfolder": (
        lambda folder: shutil.move(
            folder / "model.onnx", (folder / "onnx").mkdir() or folder / "onnx" / "model.onnx"
        ),
        "a plain graph",
    ),
    "of another name": (
        lambda folder: (folder / "model.onnx").rename(folder / "decoder.onnx"),
        "a plain graph",
    ),
}


@pytest.mark.parametrize(("change", "exporter"), KINDS.values(), ids=KINDS)
def test_each_kind_is_recognised(
    graph: Path, tmp_path: Path, change: Callable[[Path], object], exporter: str
) -> None:
    shutil.copy(graph, tmp_path)
    change(tmp_path)
    found = recognize(tmp_path)
    assert found.exporter == exporter
    assert found.first is found.later
    assert found.nbytes == graph.stat().st_size


def _edit(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx")
        change(model)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return edit


def _rename_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["tokens" if name == "input_ids" else name for name in node.input]
    model.graph.input[0].name = "tokens"


def _link(name: str, to: str) -> Callable[[Path], object]:
    def link(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return link


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda folder: (folder / "model.onnx").unlink(), "found nothing, expected"),
    "two graphs": (
        lambda folder: [
            (folder / "model.onnx").rename(folder / "a.onnx"),
            (folder / "b.onnx").touch(),
        ],
        "found 'a.onnx', 'b.onnx', expected a package",
    ),
    "no model": (
        lambda folder: (folder / "model.onnx").write_bytes(b"\xff" * 40),
        "not an ONNX model",
    ),
    "an empty file": (lambda folder: (folder / "model.onnx").write_bytes(b""), "it is empty"),
    "a FIFO": (
        lambda folder: [(folder / "model.onnx").unlink(), os.mkfifo(folder / "model.onnx")],
        "something else than a file",
    ),
    "a link that leads out": (_link("model.onnx", "/etc/passwd"), "found a link to /etc/passwd"),
    "weights of another folder": (
        _edit(lambda model: model.graph.initializer.append(external("/etc/passwd"))),
        "reads the file '/etc/passwd', expected one beside the graph",
    ),
    "weights that are not there": (
        _edit(lambda model: model.graph.initializer.append(external("weights.bin"))),
        "no such file, but model.onnx reads its weights from it",
    ),
    "weights that are cut off": (
        lambda folder: [
            _edit(lambda model: model.graph.initializer.append(external("w.bin", 8)))(folder),
            (folder / "w.bin").write_bytes(b"short"),
        ],
        "reads 4 bytes at 8 of w.bin, which has 5",
    ),
    "weights in a link that leads out": (
        lambda folder: [
            _edit(lambda model: model.graph.initializer.append(external("w.bin")))(folder),
            _link("w.bin", "/etc/passwd")(folder),
        ],
        "found a link to /etc/passwd",
    ),
    "an input that nobody knows": (_edit(_rename_input), "found the inputs 'tokens'"),
    "an op that nobody knows": (
        _edit(lambda model: setattr(model.graph.node[-1], "op_type", "Unknown")),
        "ONNX Runtime cannot load it",
    ),
    "a path for a file name": (
        lambda folder: as_genai(folder, filename="../model.onnx"),
        "filename is '../model.onnx', expected the plain name",
    ),
    "a pipeline": (lambda folder: as_genai(folder, pipeline=[{}]), "a pipeline of several graphs"),
    "a deep document": (
        lambda folder: (folder / "genai_config.json").write_bytes(b"[" * 100_000),
        "nested more than",
    ),
    "another format": (
        lambda folder: as_transformers(folder, export_format="openvino"),
        "found export_format 'openvino', expected 'onnx'",
    ),
    "other components": (
        lambda folder: as_transformers(folder, components={"vision_encoder": {}}),
        "found the components 'vision_encoder', expected model",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_judged_is_one_line(
    graph: Path, checkpoint: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    shutil.copy(graph, tmp_path)
    spoil(tmp_path)
    with pytest.raises(GptOssError) as caught:
        validate(tmp_path, checkpoint)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_graph_of_another_model_is_refused(graph: Path, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "other", tiny_document("mistral", num_hidden_layers=3))
    with pytest.raises(ParityError, match="expected a key and a value of each of the checkpoint's"):
        validate(graph.parent, tmp_path / "other")
    make_checkpoint(
        tmp_path / "wide", tiny_document("mistral", num_hidden_layers=2, num_key_value_heads=4)
    )
    with pytest.raises(ParityError, match="as the checkpoint says"):
        validate(graph.parent, tmp_path / "wide")


def test_options_of_our_packages_are_refused(graph: Path, checkpoint: Path) -> None:
    with pytest.raises(InputError, match="leave them out"):
        validate(graph.parent, checkpoint, kernels="native")


def test_a_folder_that_is_not_there(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError):
        validate(tmp_path / "nowhere", checkpoint)

"""What a checkpoint folder may make this project open, and what lies in it that must not be
ignored.
"""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import KINDS, as_markdown, kind_of
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter import export
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import INDEX, SCALES, SINGLE, Q, edit_json, failure, rewrite
from support.tiny_package import clone, tiny_checkpoint

SECRET = "what only the user may read"
DOCS = Path(__file__).parents[2] / "docs" / "checkpoints.md"


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer and a chat template, free to be spoilt."""
    return clone(tiny_checkpoint(tmp_path_factory), tmp_path / "checkpoint")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


def refused(folder: Path) -> str:
    """Export a checkpoint, which must fail and leave nothing; returns the one line."""
    output = folder.parent / "package"
    with pytest.raises(CheckpointError) as caught:
        export(folder, output)
    assert not output.exists()
    assert [path for path in folder.parent.iterdir() if path.name.endswith(".partial")] == []
    text = str(caught.value)
    assert "\n" not in text
    return text


# Links: within the checkpoint, or within its hub repository, and nowhere else

OPENED = (
    "config.json",
    SINGLE,
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    INDEX,
)


@pytest.mark.parametrize("name", OPENED)
def test_a_link_out_of_the_checkpoint_is_not_followed(
    folder: Path, secret: Path, name: str
) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    text = refused(folder)
    assert f"{name}: a link to {secret}, outside of {folder}" in text
    assert SECRET not in text


def test_a_linked_folder_does_not_hide_the_way_out(folder: Path, secret: Path) -> None:
    (folder / "inside").symlink_to(secret.parent, target_is_directory=True)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").symlink_to("inside/secret")
    assert "outside of" in refused(folder)


def test_a_link_within_the_checkpoint_is_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").rename(folder / "template")
    (folder / "chat_template.jinja").symlink_to("template")
    export(folder, tmp_path / "package")
    copied = tmp_path / "package" / "chat_template.jinja"
    assert copied.read_text() == (folder / "template").read_text()
    assert not copied.is_symlink()


def test_the_checkpoint_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    with open_checkpoint(tmp_path / "link") as checkpoint:
        assert checkpoint.load(Q).any()


def test_a_snapshot_reaches_its_repository_and_no_further(
    folder: Path, secret: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "hub" / "models--a--b"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    with open_checkpoint(snapshot) as checkpoint:
        assert checkpoint.path_of("chat_template.jinja") == snapshot / "chat_template.jinja"
    (repository / "blobs" / "chat_template.jinja").unlink()
    (repository / "blobs" / "chat_template.jinja").symlink_to(secret)
    assert f"outside of {repository}" in refused(snapshot)


@pytest.mark.parametrize(
    ("folder", "root"),
    [
        ("/hub/models--a--b/snapshots/0123", "/hub/models--a--b"),
        ("/hub/models--a--b/snapshots/0123/original", "/hub/models--a--b"),
        ("/hub/models--a--b/snapshots", "/hub/models--a--b/snapshots"),
        ("/hub/models--a--b", "/hub/models--a--b"),
        ("/data/snapshots/0123", "/data/snapshots/0123"),
    ],
)
def test_only_a_snapshot_is_wider_than_its_folder(folder: str, root: str) -> None:
    assert CheckpointFolder(Path(folder)).root == Path(root)


def test_links_in_a_circle_are_told(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").symlink_to("chat_template.jinja")
    assert "chat_template.jinja: cannot be opened" in refused(folder)


# What is not a regular file: refused at once


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        server.bind(path.name)
        os.chdir(here)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [_fifo, _socket, Path.mkdir], ids=["FIFO", "socket", "folder"])
@pytest.mark.parametrize("name", OPENED)
def test_what_is_not_a_file_is_refused_without_waiting(
    folder: Path, name: str, make: Callable[[Path], None]
) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    text = refused(folder)
    assert f"{name}: " in text
    assert "expected a regular file" in text or "cannot be opened" in text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", OPENED)
def test_an_endless_device_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/dev/zero")
    assert "outside of" in refused(folder)


@pytest.mark.parametrize("name", ["../secret", "a/b", "", ".", "..", "a\0b", "x" * 300, "\udcff"])
def test_only_plain_names_are_looked_for(folder: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="expected a name inside the folder"):
        CheckpointFolder(folder).find(name)


# A checkpoint that changes meanwhile


def _rewritten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(0, 0))


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def _grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


CHANGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "weights written to": (SINGLE, _rewritten, "was written to"),
    "weights replaced": (SINGLE, _replaced, "was replaced by another file"),
    "weights cut off": (
        SINGLE,
        lambda path: os.truncate(path, path.stat().st_size - 1),
        "became shorter",
    ),
    "weights longer": (SINGLE, _grown, "became longer"),
    "config written to": ("config.json", _grown, "became longer"),
    "template gone": ("chat_template.jinja", Path.unlink, "is gone"),
    "settings appeared": (
        "generation_config.json",
        lambda path: path.write_text("{}"),
        "has appeared",
    ),
    "index appeared": (INDEX, lambda path: path.write_text("{}"), "has appeared"),
}


@pytest.mark.parametrize(("name", "change", "words"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_during_the_export_is_noticed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Path], object],
    words: str,
) -> None:
    """The change comes with the very last step before the manifest, after everything was read."""
    monkeypatch.setattr(
        "gptoss_onnx.exporter.export_package.write_golden", lambda *_: change(folder / name)
    )
    text = refused(folder)
    assert text.startswith(f"{folder / name}: {words}")
    assert "do this again when nothing writes to the checkpoint" in text


def test_an_adapter_that_appears_during_the_export_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appear(*_: object) -> None:
        (folder / "adapter_config.json").write_text("{}")

    monkeypatch.setattr("gptoss_onnx.exporter.export_package.write_golden", appear)
    assert "adapter_config.json" in refused(folder)


def test_weights_that_change_are_not_loaded(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        checkpoint.load(Q)
        _rewritten(folder / SINGLE)
        with pytest.raises(CheckpointError, match="was written to"):
            checkpoint.load(Q)


# Files that would change the model, or leave open which one is meant

REFUSED = {
    "adapter_config.json": "an adapter",
    "adapter_model.bin": "an adapter",
    "adapter_model.safetensors": "an adapter",
    "adapters.safetensors": "an adapter",
    "quantize_config.json": "another quantization",
    "quant_config.json": "another quantization",
    "hf_quant_config.json": "another quantization",
    "quanto_qmap.json": "another quantization",
    "modelopt_state.pth": "another quantization",
    "model-00001-of-00002.safetensors": "a second set of weights",
    "model.fp16.safetensors": "a second set of weights",
    "mtp.safetensors": "a second set of weights",
    "model.fp16.safetensors.index.json": "a second set of weights",
}


@pytest.mark.parametrize(("name", "what"), REFUSED.items(), ids=REFUSED.keys())
def test_nothing_that_changes_the_model_is_ignored(folder: Path, name: str, what: str) -> None:
    (folder / name).write_text("{}")
    text = failure(folder)
    assert f"found {name}: " in text
    assert what in text


def test_shards_that_the_index_does_not_list_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", tiny_document(num_hidden_layers=2), shard_bytes=60_000)
    (tmp_path / "c" / "model-00007-of-00007.safetensors").touch()
    (tmp_path / "c" / SINGLE).touch()
    text = failure(tmp_path / "c")
    assert (
        "found model-00007-of-00007.safetensors, model.safetensors: a second set of weights" in text
    )


def test_an_index_of_the_one_file_is_no_second_set(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        names = list(checkpoint.tensors)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, SINGLE)}))
    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.tensors) == names


IGNORED = (
    "README.md",
    "LICENSE",
    "pytorch_model.bin",
    "model-Q4_K_M.gguf",
    "optimizer.pt",
    "rng_state_0.pth",
    "training_args.bin",
    "vocab.json",
    "modeling_gpt_oss.py",
    ".gitattributes",
    "original/model.safetensors",
    "metal/model.bin",
    "consolidated.safetensors",
    "consolidated-00001-of-00002.safetensors",
    "consolidated.safetensors.index.json",
    "checkpoint-100/adapter_config.json",
)


def test_what_changes_nothing_is_ignored(folder: Path) -> None:
    for name in IGNORED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.load(Q).any()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("auto_map", {"AutoModelForCausalLM": "modeling.Other"}, "never run"),
        (
            "compression_config",
            {"quant_method": "compressed-tensors"},
            "'compressed-tensors' in compression_config",
        ),
        ("quantization", {"group_size": 64, "bits": 4}, "'fp8' or no quantization"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "'bitsandbytes'"),
        ("quantization_config", ["mxfp4"], "['mxfp4']"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    folder: Path, key: str, value: object, words: str
) -> None:
    edit_json(folder / "config.json", lambda document: document.update({key: value}))
    assert words in failure(folder)


def test_the_table_is_the_one_in_the_docs() -> None:
    assert as_markdown() in DOCS.read_text()
    assert kind_of("anything").meaning == "ignored"
    assert {kind.meaning for kind in KINDS} == {"read", "copied", "refused", "ignored"}


# Weights that are not numbers


def test_a_scale_that_is_no_number_is_refused_by_name_and_index(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors[SCALES].view(-1).__setitem__(7, 255))
    text = refused(folder)
    assert f"{SCALES}[0, " in text
    assert "is a NaN scale (255)" in text


def test_a_large_checkpoint_that_is_copied_is_checked_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptoss_onnx.exporter.export_package.GOLDEN_LIMIT", 0)
    rewrite(folder, lambda tensors: tensors[Q].view(-1).__setitem__(3, torch.nan))
    with pytest.raises(CheckpointError, match=rf"{Q}\[0, 3\] in {SINGLE} is nan"):
        export(folder, folder.parent / "package", weights="copy")


def test_weights_that_overflow_leave_no_golden_file(folder: Path) -> None:
    """Every weight is finite, and the logits are not: JSON has no word for that."""
    rewrite(folder, lambda tensors: tensors["lm_head.weight"].fill_(3e38))
    assert "golden vectors: case random-beyond-window: these weights overflow float32" in refused(
        folder
    )

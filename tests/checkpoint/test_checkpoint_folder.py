"""What a checkpoint folder may make this project open, and what lies in it that must not be
ignored.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter import export
from gptoss_onnx.reference import open_checkpoint
from support.checkpoints import INDEX, SINGLE, Q
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


def in_hub(files: Iterable[Path], repository: Path) -> dict[str, Path]:
    """Copy files into a hub cache's repository; returns the blobs by the files' names."""
    (repository / "blobs").mkdir(parents=True)
    return {path.name: shutil.copy(path, repository / "blobs" / path.name) for path in files}


def test_a_folder_of_links_to_one_hub_repository(
    folder: Path, tmp_path: Path, secret: Path
) -> None:
    """As huggingface_hub made of `local_dir`, and as users make them."""
    links, hub = tmp_path / "links", tmp_path / "hub"
    links.mkdir()
    for name, blob in in_hub(folder.iterdir(), hub / "models--a--b").items():
        (links / name).symlink_to(blob)
    export(links, tmp_path / "exported")
    other = in_hub([secret], hub / "models--c--d")[secret.name]
    (links / "chat_template.jinja").unlink()
    (links / "chat_template.jinja").symlink_to(other)
    assert f"a link to {other}, outside of {links}" in refused(links)


def test_a_snapshot_does_not_reach_another_repository(
    folder: Path, tmp_path: Path, secret: Path
) -> None:
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "0123"
    shutil.copytree(folder, snapshot)
    other = in_hub([secret], tmp_path / "hub" / "models--c--d")[secret.name]
    (snapshot / "chat_template.jinja").unlink()
    (snapshot / "chat_template.jinja").symlink_to(other)
    assert "outside of" in refused(snapshot)


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

"""Packages of strangers in the C++ client: one line, exit code 2, within 10 s and 1 GiB, and no
file but the package's.

The rule is in docs/security.md. Graphs that try to read other files, and packages with one thing
spoilt by a seed, are in test_cpp_hostile_graph.py and test_cpp_mutations.py.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.exporter import Package, export
from support.cpp_client import Client, change_manifest

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

DEEP = "[" * 100_000
LARGE = 9_223_372_036_854_775_807


@pytest.fixture
def referring(demo_checkpoint: Path, tmp_path: Path) -> Path:
    """A package in mode `reference`, and its checkpoint beside it."""
    checkpoint = Path(shutil.copytree(demo_checkpoint, tmp_path / "checkpoint"))
    return export(checkpoint, tmp_path / "package", weights="reference").folder


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../model.onnx",
        "golden/golden.json",
        "",
        ".",
        "..",
        "golden\\golden.json",
        "./model.onnx",
    ],
)
@pytest.mark.parametrize(
    "path",
    [("graph",), ("weights", "files", 0, "name"), ("tokenizer_files", 0)],
    ids=lambda path: path[0],
)
def test_names_are_plain(
    client: Client, spoilt: Path, path: tuple[str | int, ...], name: str
) -> None:
    change_manifest(spoilt, *path, value=name)
    place = "/".join(map(str, path))
    assert (
        f"{place}: found '{name}', expected the name of a file in the package folder"
        in client.refused(spoilt)
    )


def test_a_name_with_a_nul(client: Client, spoilt: Path) -> None:
    change_manifest(spoilt, "graph", value="model.onnx\0.txt")
    assert "not JSON: byte " in client.refused(spoilt)


FILES = [
    "manifest.json",
    "model.onnx",
    "model.safetensors",
    "generation_config.json",
    "golden/golden.json",
]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _link_out(path: Path) -> None:
    outside = path.parents[2] / "outside"
    outside.write_text("{}")
    path.symlink_to(outside)


def _broken_link(path: Path) -> None:
    path.symlink_to("nothing")


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("put", "found"),
    [
        (_fifo, "found a FIFO, expected a regular file"),
        (_device, "found a device, expected a regular file"),
        (_folder, "found a folder, expected a regular file"),
        (_link_out, "outside, expected a file that lies in the package folder"),
        (_broken_link, "found no such file, expected a regular file"),
        (_circle, "expected a regular file"),
    ],
)
def test_files_are_regular_and_in_the_folder(
    client: Client, spoilt: Path, name: str, put: Callable[[Path], None], found: str
) -> None:
    (spoilt / name).unlink()
    put(spoilt / name)
    line = client.refused(spoilt)
    assert found in line
    assert name in line


def test_links_within_the_folder_are_followed(client: Client, spoilt: Path) -> None:
    for name in FILES:
        moved = spoilt / f"{Path(name).name}.moved"
        (spoilt / name).rename(moved)
        (spoilt / name).symlink_to(os.path.relpath(moved, (spoilt / name).parent))
    assert client.run(spoilt, "--verify").code == 0


def test_a_package_that_is_no_folder(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path / "nothing", Path("/dev/zero")):
        assert "found no such folder, expected a package folder" in client.refused(path)


def test_a_library_that_is_a_fifo(client: Client, demo_package: Package, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    words = ("--verify", "--kernels", "native", "--library", str(tmp_path / "fifo"))
    assert "fifo is no file" in client.refused(demo_package.folder, *words)


@pytest.mark.parametrize("name", ["manifest.json", "generation_config.json", "golden/golden.json"])
@pytest.mark.parametrize(
    ("text", "line"), [(DEEP, "100 levels"), ("[]", "an object"), ("\x1b]0;x\x07", "found \\x1b")]
)
def test_documents_that_are_none(
    client: Client, spoilt: Path, name: str, text: str, line: str
) -> None:
    (spoilt / name).write_text(text)
    assert line in client.refused(spoilt)


def test_control_characters_are_escaped(client: Client, spoilt: Path) -> None:
    change_manifest(spoilt, "kv_dtype", value="\x1b[2J\u202e\r\n\x9b")
    assert "kv_dtype: found \\x1b[2J\\u202e\\r\\n\\x9b, expected" in client.refused(spoilt)


def test_strings_without_end_are_cut_in_messages(client: Client, spoilt: Path) -> None:
    change_manifest(spoilt, "target", value="é" * 1_000_000)
    assert client.refused(spoilt).endswith("éé…\n")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "sub/../../secret", "", "*/_ORT_MEM_ADDR_/*"]
)
def test_references_stay_below_their_root(client: Client, referring: Path, name: str) -> None:
    change_manifest(referring, "weights", "files", 0, "name", value=name)
    assert f"found '{name}', expected a name below the weights' root" in client.refused(referring)


def test_a_reference_is_to_a_regular_file_below_its_root(
    client: Client, referring: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert "elsewhere, expected a file that lies in" in client.refused(referring)
    weights.unlink()
    os.mkfifo(weights)
    assert "found a FIFO, expected a regular file" in client.refused(referring)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            ("weights", "root"),
            None,
            "weights/root: found null, expected a folder, in mode reference",
        ),
        (
            ("weights", "root"),
            "checkpoint",
            "weights/root: found checkpoint, expected an absolute path",
        ),
        (("weights", "root"), "/dev/null", "expected a regular file"),
        (("weights", "mode"), "copy", "expected null, in mode copy"),
        (("weights", "files", 0, "origin"), "export", "found export, expected checkpoint"),
    ],
    ids=lambda value: str(value)[-30:],
)
def test_references_that_make_no_sense(
    client: Client, referring: Path, path: tuple[str | int, ...], value: Any, line: str
) -> None:
    change_manifest(referring, *path, value=value)
    assert line in client.refused(referring)


def test_a_file_of_the_system_is_no_weight_file(
    client: Client, referring: Path, tmp_path: Path
) -> None:
    """The manifest says that /etc/passwd, or what stands for it here, is a weight file."""
    secret = tmp_path / "etc" / "passwd"
    secret.parent.mkdir()
    secret.write_text("root:x:0:0:root:/root:/bin/bash\n" * 100)
    status = secret.stat()
    change_manifest(referring, "weights", "root", value="/")
    change_manifest(referring, "weights", "files", 0, "name", value=str(secret)[1:])
    change_manifest(referring, "weights", "files", 0, "size", value=status.st_size)
    change_manifest(referring, "weights", "files", 0, "mtime_ns", value=status.st_mtime_ns)
    assert "expected a safetensors file" in client.refused(referring)

"""Packages of strangers in the C++ client: one line, exit code 2, within 10 s and 1 GiB, and no
file but the package's.

The rule is in docs/security.md. Graphs that try to read other files, and packages with one thing
spoilt by a seed, are in test_cpp_hostile_graph.py and test_cpp_mutations.py.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.exporter import Package, export
from support.cpp_client import Client, Limits, change_manifest

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
    ("path", "value", "line"),
    [
        (("cache", 0, "kv_heads"), -2, "cache/0/kv_heads: found -2, expected 1 to"),
        (("cache", 0, "kv_heads"), 0, "cache/0/kv_heads: found 0, expected 1 to"),
        (
            ("cache", 0, "kv_heads"),
            LARGE,
            "cache/0/kv_heads: found 9223372036854775807, expected 1 to",
        ),
        (("cache", 0, "kv_heads"), 2**63, "cache/0/kv_heads: found a number, expected an integer"),
        (
            ("cache", 0, "kv_heads"),
            4,
            "past_key_values.0.key': found another type or shape, expected what the manifest",
        ),
        (("cache", 0, "head_dim"), 2**40, "cache/0/head_dim: found 1099511627776, expected 1 to"),
        (
            ("cache", 0, "head_dim"),
            16,
            "past_key_values.0.key': found another type or shape, expected what the manifest",
        ),
        (("cache", 0, "window"), -1, "cache/0/window: found -1, expected 0 to"),
        (("cache", 0, "window"), LARGE, "cache/0/window: found 9223372036854775807, expected 0 to"),
        (
            ("cache", 0, "past_key"),
            "other",
            "graph: found no 'other', expected one, as the manifest says",
        ),
        (("cache", 0, "past_key"), "input_ids", "graph: 'input_ids': found another type or shape"),
        (("cache", 0, "present_value"), "\x1b", "graph: found no '\\x1b', expected one"),
        (("cache", 0), None, "cache/0: found null, expected an object"),
        (("cache",), [], "cache: found 0 layers, expected 1 to"),
        (("cache",), [{}] * 5000, "cache: found 5000 layers, expected 1 to"),
        (("cache",), {}, "cache: found an object, expected an array"),
        (
            ("kv_dtype",),
            "float64",
            "kv_dtype: found float64, expected float32 or float16 or bfloat16",
        ),
        (("kv_dtype",), "float16", "found another type or shape, expected what the manifest says"),
        (("model", "vocab_size"), 0, "model/vocab_size: found 0, expected 1 to"),
        (
            ("model", "vocab_size"),
            LARGE,
            "model/vocab_size: found 9223372036854775807, expected 1 to",
        ),
        (("model", "vocab_size"), 2047, "graph: 'logits': found another type or shape"),
        (("model", "vocab_size"), 1e9, "model/vocab_size: found a number, expected an integer"),
        (("model", "vocab_size"), True, "model/vocab_size: found a boolean, expected an integer"),
        (
            ("model", "max_position_embeddings"),
            2**62,
            "max_position_embeddings: found 4611686018427387904",
        ),
        (
            ("model", "max_position_embeddings"),
            -1,
            "max_position_embeddings: found -1, expected 1 to",
        ),
        (("tokenizer_files",), ["a"] * 100, "tokenizer_files: found 100 files, expected at most"),
        (
            ("weights", "mode"),
            "steal",
            "weights/mode: found steal, expected link or copy or reference",
        ),
        (("weights", "root"), "/", "weights/root: found /, expected null, in mode"),
        (
            ("weights", "files", 0, "origin"),
            "moon",
            "origin: found moon, expected checkpoint or export",
        ),
        (("weights", "files", 0, "size"), 1, "bytes, expected 1, as when the package was written"),
        (("weights", "files", 0, "size"), -1, "size: found -1, expected 0 to"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_manifests_that_make_no_sense(
    client: Client, spoilt: Path, path: tuple[str | int, ...], value: Any, line: str
) -> None:
    change_manifest(spoilt, *path, value=value)
    assert line in client.refused(spoilt)


def test_a_key_that_is_there_twice(client: Client, spoilt: Path) -> None:
    text = (spoilt / "manifest.json").read_text()
    (spoilt / "manifest.json").write_text('{"graph": "model.onnx",' + text[1:])
    assert 'once the key "graph"' in client.refused(spoilt)


@pytest.mark.parametrize("value", [-1, "2", 2.5, [1, -1], [1, "2"], 2**31, {}])
def test_stop_tokens_are_token_ids(client: Client, spoilt: Path, value: Any) -> None:
    (spoilt / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    assert "eos_token_id" in client.refused(spoilt)
    (spoilt / "generation_config.json").unlink()
    change_manifest(spoilt, "model", "eos_token_id", value=value)
    assert "model/eos_token_id" in client.refused(spoilt)


def test_a_config_of_null_leaves_the_models_stop_tokens(client: Client, spoilt: Path) -> None:
    tokens = client.generate(spoilt, [1428, 304, 258], "--max-new-tokens", "8")["tokens"]
    (spoilt / "generation_config.json").write_text('{"eos_token_id": null}')
    change_manifest(spoilt, "model", "eos_token_id", value=tokens[3])
    found = client.generate(spoilt, [1428, 304, 258], "--max-new-tokens", "8")
    assert (found["tokens"], found["finish_reason"]) == (
        tokens[: tokens.index(tokens[3]) + 1],
        "stop",
    )


def test_a_package_without_a_stop_token_is_told(client: Client, spoilt: Path) -> None:
    (spoilt / "generation_config.json").unlink()
    result = client.run(spoilt, "--prompt-tokens", "1", "--max-new-tokens", "2")
    assert "names no token that ends a text: only --max-new-tokens or --stop-token do" in result.err
    assert (
        "names no token" not in client.run(spoilt, "--prompt-tokens", "1", "--stop-token", "5").err
    )


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


def with_header(header: bytes, length: int | None = None) -> bytes:
    """A safetensors file of this header and 16 bytes of data."""
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(16)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "0 bytes and a header of 0, expected a safetensors file"),
        (b"\x01\x02", "2 bytes and a header of"),
        (with_header(b""), "a header of 0, expected"),
        (with_header(b"{}", 2**64 - 1), "a header of 18446744073709551615, expected"),
        (with_header(b"{}", 17_000_000), "a header of 17000000, expected"),
        (with_header(DEEP.encode()), "100 levels"),
        (with_header(b"[]"), "found an array, expected an object"),
        (with_header(b'{"a":{}}'), "a/data_offsets: found nothing"),
        (with_header(b'{"a":{"data_offsets":[0,-1]}}'), "data_offsets/1: found -1"),
        (
            with_header(b'{"a":{"data_offsets":[0,17]}}'),
            "data_offsets/1: found 17, expected 0 to 16",
        ),
        (with_header(b'{"a":{"data_offsets":[9,8]}}'), "expected two, the second not smaller"),
        (with_header(b'{"a":{"data_offsets":[0,8,9]}}'), "expected two, the second not smaller"),
        (with_header(b'{"a":{"data_offsets":[0,8]},"a":{}}'), 'once the key "a"'),
        (with_header(b"{}"), "expected exactly one tensor of"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_headers_of_weights(client: Client, spoilt: Path, content: bytes, line: str) -> None:
    (spoilt / "model.safetensors").write_bytes(content)
    change_manifest(spoilt, "weights", "mode", value="copy")
    change_manifest(spoilt, "weights", "files", 0, "size", value=len(content))
    assert line in client.refused(spoilt)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("sampled_indices", 0), -1, "sampled_indices/0: found -1, expected 0 to 2047"),
        (("sampled_indices", 0), 2048, "sampled_indices/0: found 2048, expected 0 to 2047"),
        (("cases",), [], "cases: found 0, expected 1 to"),
        (("cases", 0, "token_ids"), [], "prompt: found no tokens"),
        (("cases", 0, "token_ids"), [1] * 2000, "capacity: found 2064, expected 1 to 1024"),
        (("cases", 0, "token_ids", 0), LARGE, "token_ids/0: found 9223372036854775807"),
        (("cases", 0, "greedy"), [], "greedy: found no tokens"),
        (("cases", 0, "positions", 0), 1000, "positions: found 1000"),
        (("cases", 0, "positions", 0), LARGE, "positions/0: found 9223372036854775807"),
        (("cases", 0, "positions"), [0] * 2000, "positions: found 2000, expected at most"),
        (("cases", 0, "positions"), [1, 1], "positions: found 1, expected"),
        (("cases", 0, "top_indices", 0, 0), -1, "top_indices/0/0: found -1"),
        (("cases", 0, "top_indices"), [], "top_indices: found 0 elements, expected more than 0"),
        (("cases", 0, "top_logits", 0), [], "top_logits/0: found 0, expected 64 logits"),
        (("cases", 0, "top_logits", 0, 0), None, "top_logits/0/0: found null, expected a number"),
        (("cases", 0, "logsumexp"), [1], "logsumexp: found 1, expected"),
        (("cases", 0, "name"), 7, "name: found an integer, expected a string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_golden_vectors_that_make_no_sense(
    client: Client, spoilt: Path, path: tuple[str | int, ...], value: Any, line: str
) -> None:
    file = spoilt / "golden" / "golden.json"
    golden = json.loads(file.read_text())
    place = golden
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(json.dumps(golden))
    result = client.run(spoilt, "--verify", limits=Limits())
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert line in result.err

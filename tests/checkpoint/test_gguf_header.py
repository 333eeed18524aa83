"""GGUF headers of strangers: bounded, and refused in one line that names the file."""

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.gguf.header import Header, Texts, read_header
from gptoss_onnx.errors import CheckpointError

U32, STRING, ARRAY = 4, 8, 9
SECONDS = 10.0  # far more than any of these takes; without a bound they take hours


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def head(tensors: int, keys: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key.encode()) + struct.pack("<I", kind) + value


def read(folder: Path, content: bytes) -> Header:
    (folder / "x.gguf").write_bytes(content)
    return read_header(CheckpointFolder(folder), "x.gguf")


def failure(folder: Path, content: bytes) -> str:
    begin = time.perf_counter()
    with pytest.raises(CheckpointError) as caught:
        read(folder, content)
    assert time.perf_counter() - begin < SECONDS
    found = str(caught.value)
    assert found.startswith(str(folder / "x.gguf")) and "\n" not in found and len(found) < 700
    return found


def test_what_the_package_writes_is_read_back(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gpt-oss")
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_block_count(3)
    writer.add_token_list(["a", "ü", "😀"])
    writer.add_token_types([1, 3, 4])
    writer.add_bool("flag", True)
    writer.add_float64("wide", 1 / 3)
    writer.add_key_value("low", -3, gguf.GGUFValueType.INT8)
    writer.add_tensor("a", np.ones((2, 3, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(CheckpointFolder(tmp_path), "x.gguf")
    metadata = dict(header.metadata)
    words, kinds = metadata.pop("tokenizer.ggml.tokens"), metadata.pop("tokenizer.ggml.token_type")
    assert isinstance(words, Texts) and list(words) == ["a", "ü", "😀"]
    assert isinstance(kinds, np.ndarray) and kinds.tolist() == [1, 3, 4]
    assert metadata == {
        "general.architecture": "gpt-oss",
        "gpt-oss.attention.layer_norm_rms_epsilon": 1e-5,
        "gpt-oss.block_count": 3,
        "flag": True,
        "wide": 1 / 3,
        "low": -3,
    }
    (tensor,) = header.tensors
    assert (tensor.name, tensor.kind, tensor.shape, tensor.offset) == ("a", 0, (2, 3, 4), 0)
    content = (tmp_path / "x.gguf").read_bytes()
    assert content[header.begin : header.begin + 96] == np.ones(24, np.float32).tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF file"),
        (b"PK\3\4" * 9, "not a GGUF file: it does not begin with GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (head(0, 0, 1), "found version 1, expected a little-endian GGUF file of version 2 or 3"),
        (head(0, 0, 0x03000000), "found a big-endian file"),
        (head(0, 0)[:20], "cut off: 20 bytes end within the header"),
        (head(1 << 62, 0), f"found {1 << 62} tensors, expected at most 131072"),
        (head(0, 1 << 40), f"found {1 << 40} metadata keys, expected at most 4096"),
        (head(0, 1), "cut off"),
        (head(0, 1) + text(b"k" * 300), "expected at most 255 bytes"),
        (head(0, 1) + struct.pack("<Q", 1 << 63), "cut off"),
        (head(0, 1) + entry("k", 99, b""), "k: found a value of type 99, which is not known"),
        (head(0, 1) + entry("k", STRING, struct.pack("<Q", 1 << 50)), "cut off"),
        (head(0, 1) + entry("k", ARRAY, struct.pack("<IQ", U32, 1 << 60)), "cut off"),
        (head(0, 1) + entry("k", ARRAY, struct.pack("<IQ", STRING, 1 << 60)), "cut off"),
        (
            head(0, 1) + entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1 << 60)),
            "k: found an array of type 9, which is not read",
        ),
        (
            head(0, 2) + entry("k", U32, b"\1\0\0\0") * 2,
            "k: found twice in the metadata",
        ),
        (
            head(0, 1) + entry("general.alignment", U32, struct.pack("<I", 48)),
            "general.alignment: found 48, expected a power of two",
        ),
        (
            head(0, 1) + entry("general.alignment", STRING, text(b"x")),
            "general.alignment: found 'x', expected a power of two",
        ),
        (head(1, 0) + text(b"t") + struct.pack("<I", 5), "t: found 5 dimensions"),
        (head(1, 0) + text(b"t") + struct.pack("<IQ", 4, 1), "cut off"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in failure(tmp_path, content)


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    lying = head(0, 1) + entry("k", STRING, struct.pack("<Q", 1 << 40))
    with (tmp_path / "x.gguf").open("wb") as file:
        file.write(lying)
        file.truncate(1 << 41)  # holes
    with pytest.raises(CheckpointError, match="found a header of more than 67108864 bytes"):
        read_header(CheckpointFolder(tmp_path), "x.gguf")


def test_letters_of_a_terminal_are_not_printed(tmp_path: Path) -> None:
    content = head(0, 1) + entry("\x1b[31mred\n", 99, b"")
    assert "\x1b" not in failure(tmp_path, content)

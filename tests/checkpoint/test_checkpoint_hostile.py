"""Checkpoints that were made to harm: one line, in seconds, whatever their headers and JSON files
say.
"""

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import HEADER_LIMIT
from gptoss_onnx.json_text import JSON_LIMIT
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import INDEX, SINGLE, Q, edit_json, failure
from support.tiny_package import clone, tiny_checkpoint

SECONDS = 10  # that a refusal may take
PEAK_BYTES = 1 << 30  # and the memory that the whole process may need, PyTorch included
LINE = 12_000  # letters of a message: twenty problems of bounded length


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tiny_checkpoint(tmp_path_factory), tmp_path / "checkpoint")


def refusal(folder: Path) -> str:
    """Open a checkpoint, which must be refused in time; returns the line."""
    begin = time.perf_counter()
    text = failure(folder)
    assert time.perf_counter() - begin < SECONDS
    assert len(text) < LINE
    assert text.isprintable()
    return text


def write_weights(folder: Path, header: bytes, data: bytes = b"") -> None:
    (folder / SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + data)


DOCUMENTS = {
    "nested deep in lists": b"[" * 100_000 + b"]" * 100_000,
    "nested deep in objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested and cut off": b'{"a":' * 100_000,
    "a number of 5,000 digits": b'{"hidden_size":' + b"9" * 5_000 + b"}",
    "an exponent of 400 digits": b'{"rms_norm_eps":1e' + b"9" * 400 + b"}",
    "NaN": b'{"rms_norm_eps":NaN}',
    "Infinity": b'{"rope_theta":Infinity}',
    "a key twice": b'{"hidden_size":64,"hidden_size":65}',
    "half a surrogate pair": b'{"model_type":"\\ud800"}',
    "bytes that are not UTF-8": b'{"model_type":"\xff"}',
    "a NUL": b'{"model_type":"a\x00b"}',
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
@pytest.mark.parametrize("name", ["config.json", INDEX, SINGLE])
def test_json_that_no_reader_should_meet(folder: Path, name: str, document: bytes) -> None:
    if name == SINGLE:
        write_weights(folder, document)
    else:
        (folder / name).write_bytes(document)
    assert name in refusal(folder)


ENTRIES: dict[str, Any] = {
    "a negative size": {"shape": [-128, 64]},
    "two negative sizes": {"shape": [-128, -64]},
    "a size of 2^63": {"shape": [2**63]},
    "sizes whose product is beyond 64 bits": {"shape": [2**40, 2**40]},
    "a boolean for a size": {"shape": [True, 64]},
    "a float for a size": {"shape": [128.0, 64]},
    "a string for a size": {"shape": ["128", 64]},
    "a string for a shape": {"shape": "ab"},
    "no shape": {"shape": None},
    "many dimensions": {"shape": [1] * 5_000},
    "a dtype that is a list": {"dtype": ["BF16"]},
    "a dtype that is none": {"dtype": "BF17"},
    "a dtype of control characters": {"dtype": "\x1b[2J\n"},
    "negative offsets": {"data_offsets": [-16384, 0]},
    "offsets that descend": {"data_offsets": [16384, 0]},
    "offsets of 2^63": {"data_offsets": [2**63, 2**63 + 16384]},
    "offsets of 2^62": {"data_offsets": [2**62, 2**62 + 16384]},
    "floats for offsets": {"data_offsets": [0.0, 16384.0]},
    "booleans for offsets": {"data_offsets": [False, True]},
    "one offset": {"data_offsets": [0]},
    "three offsets": {"data_offsets": [0, 1, 2]},
    "offsets in an object": {"data_offsets": {"0": 0, "1": 16384}},
    "one key more": {"extra": 1},
}


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES.keys())
def test_a_tensor_that_is_described_wrong(folder: Path, change: dict[str, Any]) -> None:
    edit_header(folder, lambda header: header[Q].update(change))
    assert Q in refusal(folder)


def test_tensors_that_overlap(folder: Path) -> None:
    """A tensor that begins a little into another one is found by the gap it leaves, whichever is
    named.
    """
    edit_header(
        folder,
        lambda header: header[Q].update(
            data_offsets=[begin + 64 for begin in header[Q]["data_offsets"]]
        ),
    )
    assert "begins at byte" in refusal(folder)


def edit_header(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = (folder / SINGLE).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edit(header)
    write_weights(folder, json.dumps(header).encode(), content[8 + length :])


NAMES = {
    "a NUL": "a\0b",
    "an escape": "\x1b]0;title\x07",
    "a way up": "../../x",
    "a line end": "a\nb",
    "long": "x" * 10**6,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_tensor_of_a_strange_name(folder: Path, name: str) -> None:
    edit_header(folder, lambda header: header.update({name: header.pop(Q)}))
    text = refusal(folder)
    assert f"{Q}: missing" in text
    assert "unexpected, found in" in text or "..." in text


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
        "a\0.safetensors",
        "model.onnx",
        "\x1b.x",
    ],
)
def test_an_index_of_strange_files(folder: Path, name: str) -> None:
    """Also `model.onnx`: a link of that name would make the export write into the checkpoint."""
    (folder / INDEX).write_text(json.dumps({"weight_map": {Q: name}}))
    assert "expected a name inside the folder" in refusal(folder)


def test_sizes_without_bounds_are_refused(folder: Path) -> None:
    for key in (
        "num_hidden_layers",
        "hidden_size",
        "num_local_experts",
        "vocab_size",
        "sliding_window",
    ):
        edit_json(folder / "config.json", lambda document, key=key: document.update({key: 10**12}))
    text = refusal(folder)
    assert text.count("an integer of at most") == 5


def test_more_files_than_a_checkpoint_has(folder: Path) -> None:
    names = {f"t{number}": f"{number}.safetensors" for number in range(100_000)}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    assert "found 100000 files, expected at most" in refusal(folder)


def test_one_file_under_many_names_is_read_once(folder: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).symlink_to(SINGLE)
    (folder / INDEX).write_text(
        json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    )
    assert "b.safetensors: the same file as a.safetensors" in refusal(folder)


# What is large: opened in a process of its own, whose memory is measured


def _large_index(folder: Path) -> None:
    entries = ",".join(f'"t{number}":"{SINGLE}"' for number in range(500_000))
    _fill(folder / INDEX, f'{{"weight_map":{{{entries}', "}}")


def _fill(path: Path, begin: str, end: str) -> None:
    text = begin.encode()
    assert len(text) < JSON_LIMIT
    path.write_bytes(text + b" " * (JSON_LIMIT - len(text) - len(end)) + end.encode())


def _many_small_values(folder: Path) -> None:
    _fill(folder / "config.json", '{"x":[' + "[]," * 5_000_000, "1]}")


def _many_tensors(folder: Path) -> None:
    entry = '{"dtype":"U8","shape":[],"data_offsets":[0,0]}'
    entries = ",".join(f'"{number}":{entry}' for number in range(250_000))
    write_weights(folder, f"{{{entries}}}".encode())


def _larger_than_any_header(folder: Path) -> None:
    write_weights(folder, b" " * (HEADER_LIMIT + 1))


def _larger_than_any_json(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 40)


LARGE = [
    _large_index,
    _many_small_values,
    _many_tensors,
    _larger_than_any_header,
    _larger_than_any_json,
]
OPEN = """
import sys, time
from pathlib import Path
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import open_checkpoint
begin = time.perf_counter()
try:
    open_checkpoint(sys.argv[1])
except CheckpointError as error:
    # not ru_maxrss, which begins with the memory of the process that started this one
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) << 10
    print(time.perf_counter() - begin, peak, len(str(error)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("make", LARGE, ids=lambda make: make.__name__.strip("_").replace("_", " "))
def test_what_is_large_takes_neither_long_nor_much(
    folder: Path, make: Callable[[Path], None]
) -> None:
    make(folder)
    command = [sys.executable, "-c", OPEN, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak, letters = map(float, done.stdout.split())
    assert seconds < SECONDS
    assert peak < PEAK_BYTES
    assert letters < LINE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 2**30, "vocab_size": 2**31 - 1}, "expected"),
        ({"num_hidden_layers": 1024, "hidden_size": 2**30}, "expected"),
    ],
)
def test_sizes_that_no_memory_holds(folder: Path, changes: dict[str, int], words: str) -> None:
    edit_json(folder / "config.json", lambda document: document.update(changes))
    assert words in refusal(folder)


def test_more_experts_one_by_one_than_any_model_has() -> None:
    document = tiny_document("mixtral", num_local_experts=2**31 - 1)
    begin = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"^config.json: found layers and experts that are"):
        make_checkpoint(Path("never"), document, sparse=True)
    assert time.perf_counter() - begin < SECONDS

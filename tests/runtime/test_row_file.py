"""A row state's file: what was saved comes back mapped, and whatever a stranger changed is refused
in one line.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.row_state import RowState
from support.fake_package import VOCAB, expected_logits, write_fake_package

WINDOWS = (0, 3, 8)
TOKENS = [(7 * place) % VOCAB for place in range(30)]
Header = dict[str, Any]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = write_fake_package(tmp_path_factory.mktemp("package"), WINDOWS)
    with Session.open(folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def state(session: Session) -> RowState:
    cache = session.new_cache(1, 40, reserve=2, chunk=8)
    session.forward([TOKENS], cache)
    return cache.save_row(0)


@pytest.fixture
def path(session: Session, state: RowState, tmp_path: Path) -> Path:
    state.save(tmp_path / "prompt.safetensors", session)
    return tmp_path / "prompt.safetensors"


@pytest.mark.parametrize("kv_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("count", [0, 2, 30])
def test_a_saved_row_comes_back(kv_dtype: str, count: int, tmp_path: Path) -> None:
    folder = write_fake_package(tmp_path / "package", WINDOWS, kv_dtype, sinks=(0, 1, 4))
    tokens, sinks = TOKENS[:count], (0, 1, 4)
    with Session.open(folder, threads=1) as session:
        source, target = session.new_cache(1, 40, reserve=2, chunk=8), session.new_cache(3, 50)
        session.forward(np.array([tokens], np.int64), source)
        source.save_row(0).save(tmp_path / "row", session)
        opened = RowState.open(tmp_path / "row", session.package)
        assert (opened.tokens.tolist(), opened.floor) == (tokens, max(0, count - 2) * (count > 9))
        assert opened.nbytes == source.save_row(0).nbytes
        for key, _ in opened.blocks:
            assert not key.size or not key.flags.writeable
        target.load_row(1, opened)
        (tmp_path / "row").unlink()  # what is mapped stays
        logits = session.forward([[0], [5], [0]], target, [0, 1, 0])
        expected = expected_logits([*tokens, 5], WINDOWS, count, sinks)
        np.testing.assert_array_equal(logits[1, 0], expected)


def test_others_read_the_file(state: RowState, path: Path) -> None:
    tensors = load_file(path)
    assert tensors["tokens"].tolist() == TOKENS
    for index, (key, value) in enumerate(state.blocks):
        np.testing.assert_array_equal(tensors[f"layers.{index}.key"], key)
        np.testing.assert_array_equal(tensors[f"layers.{index}.value"], value)
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]


def _metadata(name: str, value: Any) -> Callable[[Header], None]:
    return lambda header: header["__metadata__"].update({name: value})


def _entry(tensor: str, name: str, value: Any) -> Callable[[Header], None]:
    return lambda header: header[tensor].update({name: value})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_metadata("format", "another"), "not a row state"),
        (_metadata("package", "0" * 64), "saved from another package, 'package"),
        (_metadata("activations", "int8\n" * 99), r"activations 'int8\\n.*, expected .*, exact;"),
        (_metadata("length", "-1"), "length: found '-1', expected 0 to"),
        (_metadata("length", "9" * 30), "length: found '9{30}', expected 0 to"),
        (_metadata("length", 30), "length: found 30, expected 0 to"),
        (_metadata("length", "٣"), "length: found .*, expected 0 to"),
        (_metadata("length", "1000000"), r"tokens: found .*, expected .*\[1000000\]"),
        (_metadata("floor", "31"), "floor: found '31', expected 0 to 30"),
        (_metadata("floor", "0"), r"layers\.1\.key: found"),
        (lambda header: header.pop("__metadata__"), "not a row state"),
        (lambda header: header.pop("tokens"), "tokens: found None"),
        (_entry("tokens", "dtype", "I32"), "tokens: found .*I32.*, expected .*I64"),
        (_entry("layers.0.key", "shape", [1, 1, 30]), r"layers\.0\.key: found .*1, 1, 30"),
        (_entry("layers.0.key", "data_offsets", [0, 120]), r"layers\.0\.key: found .*\[0, 120\]"),
        (_entry("layers.2.value", "data_offsets", [1 << 70, 0]), r"layers\.2\.value: found"),
        (lambda header: header.update({"more": {}}), "found the unknown tensor 'more'"),
    ],
)
def test_another_header_is_refused(
    session: Session, path: Path, spoil: Callable[[Header], None], message: str
) -> None:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    spoil(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(PackageError, match=message) as caught:
        RowState.open(path, session)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found 0 bytes with a header of 0"),
        (b"\xff" * 100, "found 100 bytes with a header of 18446744073709551615"),
        (struct.pack("<Q", 90) + b"[" * 90, "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "found no JSON object"),
        (struct.pack("<Q", 1_000_000) + b" " * 1_000_000, "a header of at most"),
    ],
)
def test_no_safetensors_file(
    session: Session, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "row").write_bytes(content)
    with pytest.raises(PackageError, match=message):
        RowState.open(tmp_path / "row", session)


def test_other_contents_are_refused(session: Session, path: Path) -> None:
    content = path.read_bytes()
    for changed, message in (
        (content[:-1], "found .* bytes, expected"),
        (content + b"0", "found .* bytes, expected"),
        (content[:-4] + struct.pack("<f", np.nan), r"layers\.2\.value: found numbers that are not"),
        (content[:-4] + struct.pack("<f", -np.inf), r"layers\.2\.value: found numbers that are"),
    ):
        path.write_bytes(changed)
        with pytest.raises(PackageError, match=message):
            RowState.open(path, session)
    length = 8 + struct.unpack("<Q", content[:8])[0]
    for token in (-1, VOCAB):
        path.write_bytes(content[:length] + struct.pack("<q", token) + content[length + 8 :])
        with pytest.raises(PackageError, match="found token ids beyond the package's vocabulary"):
            RowState.open(path, session)


def test_a_file_that_is_cut_off_while_it_is_mapped(session: Session, path: Path) -> None:
    """Reading what is no longer there would end the process with SIGBUS."""
    opened, cache = RowState.open(path, session), session.new_cache(1, 40)
    session.forward([[1, 2]], cache)
    os.truncate(path, 100)
    with pytest.raises(PackageError, match=r"cut off while it was open: found 100 bytes, expected"):
        cache.load_row(0, opened)
    assert cache.tokens[0].tolist() == [1, 2]


def test_places_where_no_file_is(session: Session, state: RowState, tmp_path: Path) -> None:
    for place in (tmp_path / "missing", tmp_path):
        with pytest.raises(PackageError, match=f"^{place}: "):
            RowState.open(place, session)
    for place in (tmp_path / "missing" / "row", tmp_path):
        with pytest.raises(PackageError, match=f"^{place}: cannot be written"):
            state.save(place, session)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="row state: found 7, expected the path of a file"):
        RowState.open(7, session)  # type: ignore[arg-type]  # what the test is about


def test_another_package_of_the_same_sizes(session: Session, path: Path, tmp_path: Path) -> None:
    """Keys and values of other weights are another text's, though everything fits."""
    folder = write_fake_package(tmp_path / "other", WINDOWS, bias=[1.0] * VOCAB)
    with (
        Session.open(folder, threads=1) as other,
        pytest.raises(PackageError, match=r"saved from another package, 'package\d', than"),
    ):
        RowState.open(path, other)
    with (
        Session.open(
            write_fake_package(tmp_path / "wider", shapes=[(2, 1)] * 3), threads=1
        ) as wider,
        pytest.raises(InputError, match="state: found one of another package"),
    ):
        RowState.open(path, session).save(tmp_path / "row", wider)

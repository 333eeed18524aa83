"""Read the header of a GGUF file within bounds: its metadata, and which tensor lies where.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package reads it as
well, but believes every count and makes an array of every element: 650,000 words of a tokenizer
take it a gigabyte, and a stranger's file all there is.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.checkpoint.fields import shown
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import open_regular
from gptoss_onnx.json_text import printable

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_LIMIT = 1 << 26  # bytes; gpt-oss's has 13 million, most of them its tokenizer
MOST_KEYS = 4096
MOST_TENSORS = 1 << 17
MOST_DIMENSIONS = 4
LONGEST_NAME = 255  # bytes, of a key or a tensor
MOST_ALIGNMENT = 1 << 16
ALIGNMENT = 32  # bytes, where general.alignment does not say
_BOOLEAN, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "u1"}
_NUMBERS |= {10: "<u8", 11: "<i8", 12: "<f8"}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Texts:
    """An array of strings, decoded when it is asked for."""

    content: bytes
    begin: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        """Yield the strings; what is not UTF-8 in them is replaced by U+FFFD."""
        at = self.begin
        for _ in range(self.count):
            (length,) = _LENGTH.unpack_from(self.content, at)
            at += _LENGTH.size + length
            yield self.content[at - length : at].decode("utf-8", "replace")


Value: TypeAlias = bool | int | float | str | Texts | NDArray[Any]


@dataclass(frozen=True)
class HeaderTensor:
    """A tensor as the header states it.

    Attributes:
        name: of the tensor.
        kind: the number of its type.
        shape: the outermost axis first, as in PyTorch.
        offset: in bytes, from where the tensors begin.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself; `begin` is where its tensors begin, in bytes."""

    metadata: dict[str, Value]
    tensors: tuple[HeaderTensor, ...]
    begin: int


def read_header(folder: CheckpointFolder, name: str) -> Header:
    """Return the header of a file of `folder`.

    Raises CheckpointError for what is no GGUF file, is cut off, or asks for more than a header of
    `HEADER_LIMIT` bytes may hold.
    """
    folder.require(name)
    path = folder.path / name
    with open_regular(path, CheckpointError) as file:
        content = file.read(HEADER_LIMIT)
    return _Reader(content, str(path), len(content) < HEADER_LIMIT).header()


class _Reader:
    """Reads one value after the other; nothing is allocated before its bytes are known to be
    there.
    """

    def __init__(self, content: bytes, where: str, complete: bool) -> None:
        self._content, self._where, self._complete = content, where, complete
        self._at = 0

    def header(self) -> Header:
        """Return what the whole header says."""
        if self._content[:4] != MAGIC:
            if self._content.startswith(b"version https://git-lfs."):
                raise self._error("found a git-lfs pointer; fetch the file with: git lfs pull")
            raise self._error(f"not a GGUF file: it does not begin with {MAGIC.decode()}")
        self._at = 4
        version = self._number("<I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
            kind = "a big-endian file" if swapped in VERSIONS else f"version {version}"
            raise self._error(f"found {kind}, expected a little-endian GGUF file of version 2 or 3")
        tensors, keys = self._number("<Q"), self._number("<Q")
        for count, most, what in (
            (tensors, MOST_TENSORS, "tensors"),
            (keys, MOST_KEYS, "metadata keys"),
        ):
            if count > most:
                raise self._error(f"found {count} {what}, expected at most {most}")
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._name()
            if key in metadata:
                raise self._error(f"{key}: found twice in the metadata")
            metadata[key] = self._value(key, self._number("<I"))
        infos = tuple(self._tensor() for _ in range(tensors))
        alignment = self._alignment(metadata.get("general.alignment", ALIGNMENT))
        return Header(metadata, infos, -(-self._at // alignment) * alignment)

    def _value(self, key: str, kind: int) -> Value:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._scalar(key, kind)
        kind, count = self._number("<I"), self._number("<Q")
        if kind == _STRING:
            return self._texts(count)
        if kind not in _NUMBERS:
            raise self._error(f"{key}: found an array of type {kind}, which is not read")
        dtype = np.dtype(_NUMBERS[kind])
        begin = self._skip(count * dtype.itemsize)
        return np.frombuffer(self._content, dtype, count, begin)

    def _scalar(self, key: str, kind: int) -> bool | int | float:
        if kind not in _NUMBERS:
            raise self._error(f"{key}: found a value of type {kind}, which is not known")
        dtype = np.dtype(_NUMBERS[kind])
        found = np.frombuffer(self._content, dtype, 1, self._skip(dtype.itemsize))[0]
        if kind == _BOOLEAN:
            return bool(found)
        # the shortest decimal that is this float32, as its writer had it: 1e-05, not 9.99999974e-06
        return float(str(found)) if found.dtype == np.float32 else found.item()

    def _texts(self, count: int) -> Texts:
        begin = self._at
        if count * _LENGTH.size > len(self._content) - begin:
            raise self._end()
        for _ in range(count):
            self._skip(self._number("<Q"))
        return Texts(self._content, begin, count)

    def _tensor(self) -> HeaderTensor:
        name, dimensions = self._name(), self._number("<I")
        if dimensions > MOST_DIMENSIONS:
            raise self._error(
                f"{name}: found {dimensions} dimensions, expected at most {MOST_DIMENSIONS}"
            )
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind, offset = self._number("<I"), self._number("<Q")
        return HeaderTensor(name, kind, tuple(reversed(shape)), offset)

    def _alignment(self, value: Value) -> int:
        is_power = type(value) is int and value > 0 and value & (value - 1) == 0
        if not is_power or value > MOST_ALIGNMENT:  # type: ignore[operator]  # it is an int
            raise self._error(
                f"general.alignment: found {shown(value)}, expected a power of two of at most "
                f"{MOST_ALIGNMENT}"
            )
        return value  # type: ignore[return-value]  # it is an int

    def _name(self) -> str:
        begin = self._at
        text = self._text()
        if self._at - begin - _LENGTH.size > LONGEST_NAME:
            raise self._error(
                f"found the name {shown(text)}, expected at most {LONGEST_NAME} bytes"
            )
        return text

    def _text(self) -> str:
        length = self._number("<Q")
        begin = self._skip(length)
        return self._content[begin : begin + length].decode("utf-8", "replace")

    def _number(self, form: str) -> int:
        return struct.unpack_from(form, self._content, self._skip(struct.calcsize(form)))[0]  # type: ignore[no-any-return]

    def _skip(self, size: int) -> int:
        """Return where `size` bytes begin, and go on behind them."""
        begin = self._at
        if size > len(self._content) - begin:
            raise self._end()
        self._at += size
        return begin

    def _end(self) -> CheckpointError:
        if self._complete:
            return self._error(
                f"cut off: {len(self._content)} bytes end within the header; download it again"
            )
        return self._error(f"found a header of more than {HEADER_LIMIT} bytes")

    def _error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self._where}: {printable(problem)}")

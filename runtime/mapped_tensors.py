"""MappedTensors: a safetensors file that is mapped, and whose header is exactly what is expected.

The file may be a stranger's. Its header is bounded, and is compared as a whole with the one that
the reader expects, so no offset of the file's own choosing is ever followed.
"""

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import open_regular
from gptoss_onnx.json_text import parse_json

_PREFIX = struct.Struct("<Q")  # bytes of the header, before it
_ALIGNMENT = 64  # bytes, of the first tensor
_METADATA = "__metadata__"


class TensorKind(NamedTuple):
    """How a tensor is stored: dtype in safetensors' and in numpy's spelling, and shape."""

    dtype: str
    storage: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * self.storage.itemsize


class MappedTensors:
    """A mapped file.

    Attributes:
        path: names it in messages.
        metadata: its texts by name.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], memory: mmap.mmap, begin: int
    ) -> None:
        self.path, self._header, self._memory, self._begin = path, header, memory, begin
        metadata = header.get(_METADATA)
        self.metadata: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}

    @classmethod
    def open(cls, path: Path, limit: int) -> Self:
        """Map a file whose header has at most `limit` bytes.

        Raises PackageError where there is no such file, or it is no safetensors file.
        """
        try:
            with open_regular(path, PackageError) as file:
                size = os.fstat(file.fileno()).st_size
                prefix = file.read(_PREFIX.size)
                length = _PREFIX.unpack(prefix)[0] if len(prefix) == _PREFIX.size else 0
                if not 0 < length <= min(limit, size - _PREFIX.size):
                    raise PackageError(
                        f"{path}: found {size} bytes with a header of {length}, expected a "
                        f"safetensors file with a header of at most {limit}"
                    )
                header = parse_json(file.read(length), str(path), PackageError)
                memory = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise PackageError(f"{path}: cannot be read ({error.strerror})") from error
        if not isinstance(header, dict):
            raise PackageError(f"{path}: found no JSON object in the header of a safetensors file")
        return cls(path, header, memory, _PREFIX.size + length)

    def check(self) -> None:
        """Refuse a file that was cut off since it was mapped: reading it would end the process.

        Raises PackageError.
        """
        if self._memory.size() < len(self._memory):
            raise PackageError(
                f"{self.path}: cut off while it was open: found {self._memory.size()} bytes, "
                f"expected {len(self._memory)}"
            )

    def integer(self, name: str, least: int, most: int) -> int:
        """Return a number of the metadata; raises PackageError if it is none, or out of range."""
        text = self.metadata.get(name)
        digits = isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20
        if not digits or not least <= int(str(text)) <= most:
            raise PackageError(
                f"{self.path}: {name}: found {text!r:.60}, expected {least} to {most}"
            )
        return int(str(text))

    def arrays(self, kinds: Mapping[str, TensorKind]) -> dict[str, NDArray[Any]]:
        """Return views of the tensors, which must be exactly these, one behind the other.

        Raises PackageError naming the first that differs, and for a file of another size.
        """
        found, begin = {}, 0
        for name, kind in kinds.items():
            expected, begin = _entry(kind, begin), begin + kind.nbytes
            if self._header.get(name) != expected:
                raise PackageError(
                    f"{self.path}: {name}: found {self._header.get(name)!r:.120}, expected "
                    f"{expected}"
                )
            place = self._begin + expected["data_offsets"][0]
            found[name] = (place, kind)
        unknown = self._header.keys() - kinds.keys() - {_METADATA}
        if unknown:
            raise PackageError(f"{self.path}: found the unknown tensor {min(unknown)!r:.60}")
        if len(self._memory) != self._begin + begin:
            raise PackageError(
                f"{self.path}: found {len(self._memory)} bytes, expected {self._begin + begin}"
            )
        return {name: self._view(place, kind) for name, (place, kind) in found.items()}

    def _view(self, place: int, kind: TensorKind) -> NDArray[Any]:
        count = math.prod(kind.shape)
        if count == 0:
            return np.zeros(kind.shape, kind.storage)
        return np.frombuffer(self._memory, kind.storage, count, place).reshape(kind.shape)


def write_tensors(
    path: Path, metadata: Mapping[str, str], tensors: Sequence[tuple[str, str, NDArray[Any]]]
) -> None:
    """Write tensors, each with its name and its dtype in safetensors' spelling, to a file.

    It is written beside `path` and renamed, so no reader sees half of it. Raises PackageError where
    that is impossible.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    begin = 0
    for name, dtype, array in tensors:
        kind = TensorKind(dtype, array.dtype, array.shape)
        header[name], begin = _entry(kind, begin), begin + kind.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_PREFIX.size + len(text)) % _ALIGNMENT)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # a link of that name would lead the writing out of the folder
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(_PREFIX.pack(len(text)) + text)
            for _, _, array in tensors:
                file.write(np.ascontiguousarray(array).data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise PackageError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _entry(kind: TensorKind, begin: int) -> dict[str, Any]:
    """Return what a header says of a tensor whose data begin there."""
    offsets = [begin, begin + kind.nbytes]
    return {"dtype": kind.dtype, "shape": list(kind.shape), "data_offsets": offsets}

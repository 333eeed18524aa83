"""Which tensors a checkpoint holds and which it should hold: where each lies, and what differs.

A tensor is what a safetensors file stores. A parameter is what a model multiplies with: one tensor,
or the bytes of several, one behind the other.
"""

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.fields import Problems

T = TypeVar("T")
FLOATS = ("BF16", "F16", "F32")
BYTES = ("U8",)
FP8 = "F8_E4M3"
TORCH_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "U8": torch.uint8,
    FP8: torch.float8_e4m3fn,
    # in what `export --dense int8` and `packed` write, not in checkpoints
    "I8": torch.int8,
    "I32": torch.int32,
    # the bytes of blocks in GGUF files
    "MXFP4": torch.uint8,
    "MXFP4 of ollama": torch.uint8,
    "Q8_0": torch.uint8,
}


@dataclass(frozen=True)
class TensorInfo:
    """Where one stored tensor lies: `nbytes` bytes from `offset` on in the real file `file`.

    `dtype` is in safetensors' spelling: BF16, F16, F32, F8_E4M3 or U8; or that of blocks in GGUF
    files (`checkpoint/gguf/kinds.py`), where the last axis is the bytes of a block.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype in PyTorch's terms."""
        return TORCH_DTYPES[self.dtype]


class Stored(Protocol):
    """Who gives the content of stored tensors: an opened checkpoint."""

    def load_tensor(self, info: TensorInfo) -> Tensor:
        """Return a tensor, mapped from its file."""

    def read_tensor_rows(self, info: TensorInfo, first: int, end: int) -> Tensor:
        """Return rows [first, end), (end − first, C), read into memory of their own.

        Rows are runs of the last axis, whatever the other axes are.
        """

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when the key was new; it is forgotten after some others."""


class Computation(Protocol):
    """How a parameter that is no tensor's bytes comes from what is stored."""

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """What it reads beside the parameter's sources, such as scales."""

    @property
    def loss(self) -> str | None:
        """What is lost on the way, as the manifest says it; None where nothing is."""

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end) of the parameter, (end − first, C), in the parameter's dtype.

        Args:
            stored: gives the tensors.
            first: the first row; rows are runs of the last axis, whatever the other axes are.
            end: the one after the last.
        """
        ...


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model: the rows of its `sources`, one behind the other.

    `name` is what graphs call it: its tensor's name, or, of several tensors, the one that they
    would have together. With `computed` it is what that makes of the sources and other tensors.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sources: tuple[TensorInfo, ...]
    computed: Computation | None = None

    @property
    def view(self) -> TensorInfo | None:
        """The one tensor that it is, byte for byte; None where it has to be computed."""
        return self.sources[0] if len(self.sources) == 1 and self.computed is None else None

    @property
    def rows(self) -> int:
        """How many runs of the last axis it has."""
        return element_count(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Bytes of the whole parameter; of what is computed, if it is."""
        return element_count(self.shape) * TORCH_DTYPES[self.dtype].itemsize

    @property
    def stored_nbytes(self) -> int:
        """Bytes that it takes in the checkpoint's files, with those that its computation reads."""
        return sum(tensor.nbytes for tensor in self.stored)

    @property
    def stored(self) -> tuple[TensorInfo, ...]:
        """All tensors that it is made of."""
        return self.sources + (() if self.computed is None else self.computed.tensors)

    def load_rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), (end − first, C): computed, or one tensor's mapped as it is.

        Rows are runs of the last axis, whatever the other axes are.
        """

        def mapped(source: TensorInfo, low: int, high: int) -> Tensor:
            return stored.load_tensor(source).reshape(-1, self.shape[-1])[low:high]

        return self._rows(stored, mapped, first, end)

    def read_rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows as `load_rows` does, but in memory of their own: faster where each is looked
        at once, and nothing of the file stays.
        """
        return self._rows(stored, stored.read_tensor_rows, first, end)

    def _rows(
        self,
        stored: Stored,
        take: Callable[[TensorInfo, int, int], Tensor],
        first: int,
        end: int,
    ) -> Tensor:
        if self.computed is not None:
            return self.computed.rows(stored, first, end)
        pieces = [take(*part) for part in self._parts(first, end)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _parts(self, first: int, end: int) -> Iterator[tuple[TensorInfo, int, int]]:
        """Yield the sources that rows [first, end) lie in, each with its own rows [low, high)."""
        each = self.rows // len(self.sources)  # they are equal parts
        for index in range(first // each, -(-end // each)):
            begin = index * each
            yield self.sources[index], max(first - begin, 0), min(end - begin, each)

    def meta(self) -> Tensor:
        """Return an empty tensor of this shape and dtype on the meta device."""
        return torch.empty(self.shape, dtype=TORCH_DTYPES[self.dtype], device="meta")


@dataclass(frozen=True)
class ExpectedTensor:
    """The one shape and the safetensors dtypes that a tensor may have."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]


def note_differences(
    found: Mapping[str, TensorInfo],
    files: Mapping[Path, str],
    expected: Mapping[str, ExpectedTensor],
    reported: Collection[str],
    problems: Problems,
    reasons: Mapping[str, str],
    called: Callable[[str], str] = str,
) -> None:
    """Note every tensor that is missing, unexpected, or of another shape or dtype than expected.

    Args:
        found: tensors by name.
        files: the names to use for the files that they lie in.
        expected: what should be found, by name.
        reported: names whose absence is noted already.
        problems: gets the notes.
        reasons: why a tensor is not expected, by the end of its name.
        called: what people call a tensor of such a name.
    """
    for name, want in expected.items():
        have, shown = found.get(name), called(name)
        if have is None:
            if name not in reported:
                problems.add(f"{shown}: missing, expected {want.shape} {' or '.join(want.dtypes)}")
            continue
        place = files[have.file]
        if have.shape != want.shape:
            problems.add(f"{shown}: found shape {have.shape} in {place}, expected {want.shape}")
        if have.dtype not in want.dtypes:
            dtypes = " or ".join(want.dtypes)
            problems.add(f"{shown}: found dtype {have.dtype} in {place}, expected {dtypes}")
    for name in sorted(found.keys() - expected.keys()):
        why = next((reason for ending, reason in reasons.items() if name.endswith(ending)), "")
        problems.add(f"{called(name)}: unexpected, found in {files[found[name].file]}{why}")


def element_count(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape; 1 for a scalar."""
    return math.prod(shape)

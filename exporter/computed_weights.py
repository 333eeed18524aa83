"""ComputedWeights: the weights of a package that `export` computes from the checkpoint's.

They are gathered while a graph is rewritten, and written into one safetensors file afterwards, some
rows at a time, so that memory stays small however large the model is. The same weights give the
same bytes, on any number of threads.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from gptoss_onnx.checkpoint.writer import PlannedTensor, safetensors_head
from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.external_data import ELEMENT_TYPES, byte_range, require_room
from gptoss_onnx.progress import Progress

PIECE = 1 << 18  # elements converted together: a piece and what it becomes stay in the cache
SPAN = 8  # pieces that one thread takes at a time
MOST_THREADS = 4  # more would wait for the disk, each with its piece in memory

# Given the first row and the one after the last, these rows of each tensor that is computed.
Convert = Callable[[int, int], Sequence[Tensor]]


@dataclass(frozen=True)
class Conversion:
    """How one or more tensors are computed together.

    Attributes:
        tensors: what is written.
        rows: how many equal parts each tensor has.
        width: elements that are read for one row.
        convert: returns some rows of each tensor, in the tensors' order; raises CheckpointError.
    """

    tensors: tuple[PlannedTensor, ...]
    rows: int
    width: int
    convert: Convert

    @property
    def step(self) -> int:
        """Rows converted at a time."""
        return max(1, PIECE // max(1, self.width))


class ComputedWeights:
    """Conversions whose results are initializers of a graph, and the file that they go into."""

    def __init__(self) -> None:
        self._conversions: list[Conversion] = []
        self._values: dict[str, ir.Value] = {}

    def __bool__(self) -> bool:
        """Say whether there is anything to write."""
        return bool(self._conversions)

    def add(self, graph: ir.Graph, conversion: Conversion) -> list[ir.Value]:
        """Return an initializer for each tensor; the same ones where they are asked for again."""
        if conversion.tensors[0].name not in self._values:
            values = [_initializer(graph, tensor) for tensor in conversion.tensors]
            self.give(values, conversion)
        return [self._values[tensor.name] for tensor in conversion.tensors]

    def give(self, values: Sequence[ir.Value], conversion: Conversion) -> None:
        """Give each of these initializers, of whatever element type, a tensor of the conversion."""
        self._conversions.append(conversion)
        for tensor, value in zip(conversion.tensors, values, strict=True):
            self._values[tensor.name] = value

    def write(
        self, path: Path, *, what: str, doing: str, alignment: int, progress: Progress
    ) -> None:
        """Write the new file `path`, and make every initializer a byte range of it.

        Wider elements come first, so that every tensor is aligned to its elements.

        Args:
            path: the file, in the package.
            what: the weights, for the message that says how much room they need.
            doing: what `progress` is told; it then hears of the bytes written.
            alignment: of the first tensor, in bytes.
            progress: see `doing`.

        Raises:
            PackageError: there is a file of that name, or no room for one.
            CheckpointError: a file of the checkpoint has changed, or a conversion refuses a weight.
        """
        planned = [tensor for entry in self._conversions for tensor in entry.tensors]
        planned.sort(key=lambda tensor: -tensor.itemsize)
        head, offsets = safetensors_head(planned, alignment)
        size = sum(tensor.nbytes for tensor in planned)
        require_room(path.parent, len(head) + size, f"{what} need")
        progress.begin(doing, size)
        try:
            file = path.open("xb", buffering=0)  # a link of that name leads into the checkpoint
        except FileExistsError:
            raise PackageError(
                f"{path.name}: the checkpoint has a file of this name; rename it and export again"
            ) from None
        with file:
            file.write(head)
            file.truncate(len(head) + size)
            for written in _in_threads(list(self._spans(file.fileno(), offsets))):
                progress.advance(written)
        for tensor in planned:
            value = self._values[tensor.name]
            offset = offsets[tensor.name]
            value.const_value = byte_range(tensor, path.name, offset, value.dtype, value.shape)

    def _spans(self, file: int, offsets: dict[str, int]) -> Iterator["_Span"]:
        for entry in self._conversions:
            begins = [offsets[tensor.name] for tensor in entry.tensors]
            for first in range(0, entry.rows, SPAN * entry.step):
                yield _Span(entry, first, file, begins)


@dataclass(frozen=True)
class _Span:
    """Some rows of a conversion, and where in which file its tensors begin."""

    conversion: Conversion
    first: int
    file: int
    begins: Sequence[int]

    def write(self) -> int:
        """Convert and write the rows, a piece at a time; returns how many bytes they have."""
        entry, written = self.conversion, 0
        end = min(self.first + SPAN * entry.step, entry.rows)
        for first in range(self.first, end, entry.step):
            pieces = entry.convert(first, min(first + entry.step, end))
            for tensor, begin, piece in zip(entry.tensors, self.begins, pieces, strict=True):
                row_bytes = tensor.nbytes // entry.rows
                content = piece.contiguous().reshape(-1).view(torch.uint8).numpy().data
                assert content.nbytes == row_bytes * (min(first + entry.step, end) - first)
                _write(self.file, content, begin + first * row_bytes)
                written += content.nbytes
        return written


def _in_threads(spans: Sequence[_Span]) -> Iterator[int]:
    """Write all spans, one to a thread: threads within an operation would not overlap files."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    executor = ThreadPoolExecutor(min(threads, MOST_THREADS))
    try:
        yield from executor.map(_Span.write, spans)
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _write(file: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def _initializer(graph: ir.Graph, tensor: PlannedTensor) -> ir.Value:
    element = ir.TensorType(ELEMENT_TYPES[tensor.dtype])
    value = ir.Value(name=tensor.name, shape=ir.Shape(tensor.shape), type=element)
    graph.initializers[tensor.name] = value
    return value

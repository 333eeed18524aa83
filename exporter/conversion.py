"""Conversion: how tensors of a package are computed from a checkpoint's, some rows at a time.

Memory stays small however large the model is. The same weights give the same bytes, on any number
of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.writer import PlannedTensor

PIECE = 1 << 18  # elements converted together: a piece and what it becomes stay in the cache
# of sums with adapters, made in one pass, and of MXFP4, half a byte an element: Python's share of a
# smaller piece would count
LARGE_PIECE = 1 << 20
SPAN = 1 << 22  # elements that one thread takes at a time, a piece behind the other
MOST_THREADS = 4  # more would wait for the disk, each with its piece in memory

# Given the first row and the one after the last, these rows of each tensor that is computed.
Convert = Callable[[int, int], Sequence[Tensor]]
# Takes a piece of a tensor: which tensor, at which byte of it the piece begins, and its bytes.
Visit = Callable[[PlannedTensor, int, memoryview], None]


@dataclass(frozen=True)
class Conversion:
    """How one or more tensors are computed together.

    Attributes:
        tensors: what is computed.
        rows: how many equal parts each tensor has.
        width: elements that are read for one row.
        convert: returns some rows of each tensor, in the tensors' order; raises CheckpointError.
        piece: elements converted together.
    """

    tensors: tuple[PlannedTensor, ...]
    rows: int
    width: int
    convert: Convert
    piece: int = PIECE

    @property
    def step(self) -> int:
        """Rows converted at a time."""
        return max(1, self.piece // max(1, self.width))

    @property
    def span(self) -> int:
        """Rows that one thread takes at a time; a row that is larger is taken alone."""
        return self.step * max(1, SPAN // max(1, self.step * self.width))


def convert_all(conversions: Sequence[Conversion], visit: Visit) -> Iterator[int]:
    """Compute all tensors and give every piece to `visit`, in several threads.

    Yields how many more bytes are done, again and again. Raises what a conversion or `visit` does.
    """
    spans = [
        _Span(entry, first, visit)
        for entry in conversions
        for first in range(0, entry.rows, entry.span)
    ]
    # one span to a thread: threads within an operation would not overlap files
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # one more than compute, since one thread at a time writes
    executor = ThreadPoolExecutor(min(threads, MOST_THREADS) + 1)
    try:
        yield from executor.map(_Span.run, spans)
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Span:
    """Some rows of a conversion, from `first` on."""

    conversion: Conversion
    first: int
    visit: Visit

    def run(self) -> int:
        """Convert the rows, a piece at a time; returns how many bytes they have."""
        entry, done = self.conversion, 0
        end = min(self.first + entry.span, entry.rows)
        for first in range(self.first, end, entry.step):
            last = min(first + entry.step, end)
            for tensor, piece in zip(entry.tensors, entry.convert(first, last), strict=True):
                row_bytes = tensor.nbytes // entry.rows
                content = piece.contiguous().reshape(-1).view(torch.uint8).numpy().data
                assert content.nbytes == row_bytes * (last - first)
                self.visit(tensor, first * row_bytes, content)
                done += content.nbytes
        return done

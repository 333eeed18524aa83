"""Copy pieces of one row of a cache's buffer to a block, from a block, and to another row.

On the CPU numpy copies. On a device each head's share of a piece is copied there, from memory to
memory; a block from elsewhere, such as a file, goes from the host straight to its place.

K kv heads, C slots, N positions of a block, D head dim.
"""

import contextlib
import math
import mmap
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.runtime.cache_buffer import STORAGE, CacheBuffer
from gptoss_onnx.runtime.device_memory import DeviceBlock, part_of

RowBlock = NDArray[Any] | DeviceBlock

# Bytes: page by page, so much takes longer to get than to fill. NumPy's own limit.
_LARGE = 1 << 22


class Piece(NamedTuple):
    """The same positions: `many` from `place` of a block on, and from `slot` of a buffer on."""

    place: int
    slot: int
    many: int


class BlockMemory:
    """The memory of all blocks of one state on the CPU, taken at the first."""

    def __init__(self, elements: int, dtype: str) -> None:
        self._elements, self._dtype = elements, dtype
        self._array: NDArray[Any] | None = None
        self._taken = 0

    def take(self, shape: tuple[int, int, int]) -> NDArray[Any]:
        """Return the next block; raises RuntimeUnavailable where there is no memory for all."""
        if self._array is None:
            self._array = _pages(self._elements, np.dtype(STORAGE[self._dtype]))
        begin, self._taken = self._taken, self._taken + math.prod(shape)
        assert self._taken <= self._elements
        return self._array[begin : self._taken].reshape(shape)


def block_of(
    buffer: CacheBuffer, row: int, held: int, pieces: Iterable[Piece], memory: BlockMemory
) -> RowBlock:
    """Return a new block (K, N, D) of `held` positions, with copies of the pieces of a row.

    It lies where the buffer lies, on the CPU in `memory`. Raises RuntimeUnavailable where there is
    no memory for it.
    """
    _, heads, _, width = buffer.shape
    if buffer.array is not None:
        array = memory.take((heads, held, width))
        for piece in pieces:
            array[:, _places(piece)] = buffer.array[row][:, _slots(piece)]
        return array
    if held == 0:
        return np.zeros((heads, 0, width), STORAGE[buffer.dtype])
    try:
        value = type(buffer.value).ortvalue_from_shape_and_type(
            [heads, held, width], STORAGE[buffer.dtype], buffer.device, 0
        )
    except RuntimeError as error:
        raise RuntimeUnavailable(f"KV cache: no memory for a row on {buffer.device}") from error
    block = DeviceBlock(value, buffer.dtype, buffer.device)
    for piece in pieces:
        for here, there, count in _shares(buffer, row, held, piece):
            block.part(there, count).update_inplace(_part(buffer, here, count))
    return block


def write_block(buffer: CacheBuffer, row: int, block: RowBlock, pieces: Iterable[Piece]) -> None:
    """Copy the pieces of a block to a row."""
    if buffer.array is not None:
        array = block.numpy() if isinstance(block, DeviceBlock) else block
        for piece in pieces:
            buffer.array[row][:, _slots(piece)] = array[:, _places(piece)]
        return
    flat = block if isinstance(block, DeviceBlock) else np.ascontiguousarray(block).reshape(-1)
    for piece in pieces:
        for here, there, count in _shares(buffer, row, block.shape[1], piece):
            content = (
                flat.part(there, count)
                if isinstance(flat, DeviceBlock)
                else flat[there : there + count]
            )
            _part(buffer, here, count).update_inplace(content)


def copy_slots(buffer: CacheBuffer, source: int, target: int, used: int) -> None:
    """Copy the first `used` slots of a row to another row."""
    if buffer.array is not None:
        buffer.array[target][:, :used] = buffer.array[source][:, :used]
        return
    if used == 0:
        return
    _, heads, slots, width = buffer.shape
    for head in range(heads):
        here, there = ((row * heads + head) * slots * width for row in (target, source))
        count = used * width
        _part(buffer, here, count).update_inplace(_part(buffer, there, count))


def _pages(elements: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros in pages of their own, which the system has back as soon as nobody refers to
    them; raises RuntimeUnavailable where there is no memory.

    Rows of all sizes come and go for as long as a server runs. Among them malloc leaves gaps that
    the next ones do not fit in: 20 MB of saved rows took 84 MB.
    """
    if elements == 0:
        return np.zeros(0, dtype)
    nbytes = elements * dtype.itemsize
    try:
        # by default Unix would share it with child processes, which takes no huge pages
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
        memory = mmap.mmap(-1, nbytes, **private)
    except (OSError, ValueError, OverflowError) as error:
        raise RuntimeUnavailable(
            f"KV cache: no memory for a row of {nbytes} bytes; ask for less capacity"
        ) from error
    if nbytes >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype)


def _shares(
    buffer: CacheBuffer, row: int, held: int, piece: Piece
) -> Iterator[tuple[int, int, int]]:
    """Yield each head's share of a piece: its first element in the buffer and in a block of `held`
    positions, and how many elements.
    """
    _, heads, slots, width = buffer.shape
    for head in range(heads):
        here = ((row * heads + head) * slots + piece.slot) * width
        yield here, (head * held + piece.place) * width, piece.many * width


def _part(buffer: CacheBuffer, first: int, count: int) -> Any:
    return part_of(buffer.value, buffer.dtype, buffer.device, first, count)


def _places(piece: Piece) -> slice:
    return slice(piece.place, piece.place + piece.many)


def _slots(piece: Piece) -> slice:
    return slice(piece.slot, piece.slot + piece.many)

"""KVCache: the key and value buffers of a batch of sequences, and what each row of them holds.

B batch, K kv heads, C slots of a layer, D head dim. How many slots there are and what lies in them is the layout's to
say, see `gptoss_onnx.runtime.cache_layout`.
"""

import copy
from collections.abc import Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_buffer import CacheBuffer
from gptoss_onnx.runtime.cache_layout import CacheLayout

if TYPE_CHECKING:
    from gptoss_onnx.runtime.binding import Binding

PREFILL_CHUNK = 512


class KVCache:
    """Zero-filled buffers for `batch` rows of up to `capacity` tokens each; made by `Session.new_cache`.

    A context manager; leaving it frees the buffers. Not for two threads at once: give each its own cache.

    Attributes:
        batch: rows.
        capacity: tokens each row may hold.
        reserve: tokens a row can always be rewound below `start`, even where window layers have wrapped.
        chunk: most columns one call of the graph writes; longer inputs are split.
        layers: the package's cache layers.
        layout: what the package's target expects of the buffers.
    """

    def __init__(
        self,
        onnxruntime: ModuleType,
        layers: Sequence[CacheLayer],
        dtype: str,
        layout: CacheLayout,
        batch: int,
        capacity: int,
        reserve: int = 0,
        chunk: int = PREFILL_CHUNK,
        device: str = "cpu",
    ) -> None:
        layout.check_sizes(batch, capacity, reserve, chunk)
        self.layers, self.dtype, self.layout, self.device = tuple(layers), dtype, layout, device
        self.batch, self.capacity, self.reserve, self.chunk = batch, capacity, reserve, chunk
        self.binding: Binding | None = None  # made and used by the session; void once the buffers change
        self._onnxruntime = onnxruntime
        self._lengths = np.zeros(batch, np.int64)
        self._start = np.zeros(batch, np.int64)
        self._wrapped = np.zeros(batch, np.bool_)
        self._buffers: tuple[tuple[CacheBuffer, CacheBuffer], ...] | None = tuple(
            (self._zeros(layer), self._zeros(layer)) for layer in self.layers
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens cached, (B); a copy."""
        return self._lengths.copy()

    @property
    def start(self) -> NDArray[np.int64]:
        """Largest position at which a call began on each row since its reset, (B); a copy."""
        return self._start.copy()

    @property
    def floor(self) -> NDArray[np.int64]:
        """Smallest length, besides 0, each row can be rewound to, (B): see `rewind`."""
        if not self.layout.rewinds:
            return self.lengths
        return np.where(self._wrapped, np.clip(self._start - self.reserve, 0, self._lengths), 0)

    @property
    def buffers(self) -> tuple[tuple[CacheBuffer, CacheBuffer], ...]:
        """Key and value buffer of each layer, (B, K, C, D); raises InputError once the cache is closed."""
        if self._buffers is None:
            raise InputError("cache: found it closed, expected an open one; make another with session.new_cache")
        return self._buffers

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(key.nbytes + value.nbytes for key, value in self.buffers)

    def slots(self, layer: CacheLayer) -> int:
        """Return C of one layer."""
        return self.layout.slots(layer, self.batch, self.capacity, self.reserve, self.chunk)

    def rewind(self, lengths: ArrayLike) -> None:
        """Forget each row's tokens from position `lengths` on; one integer, or one a row.

        While no window layer has wrapped on a row, nothing is lost and any length goes. Afterwards slots are
        reused and a row goes back to `start - reserve` at most, `start` being the largest position at which
        any call on it began: repeated small rewinds would otherwise eat the window. 0 is always possible
        (nothing earlier is left to be seen) and resets the row. In target `ort` it is the only length, for all
        rows together.

        Raises InputError naming the first row that cannot; nothing is changed then.
        """
        self.buffers  # noqa: B018 - refuses a closed cache
        wanted = _row_integers(lengths, "rewind lengths", self.batch)
        self.layout.check_rewind(self._lengths, wanted)
        floor = self.floor
        for row in range(self.batch):
            cached, target = int(self._lengths[row]), int(wanted[row])
            if not 0 <= target <= cached:
                raise InputError(
                    f"row {row}: cannot rewind to {target}; it holds {cached} tokens; allowed is 0 to {cached}"
                )
            if 0 < target < floor[row]:
                raise InputError(
                    f"row {row}: cannot rewind to {target}: window layers have overwritten what it would see; allowed "
                    f"is {floor[row]} to {cached}, or 0; a cache with a reserve above {self.reserve} goes further"
                )
        # Where nothing was lost the undone calls left no trace: their columns lie in slots that will be
        # rewritten before they can be seen. They need not count in `start` any more.
        lossless = ~self._wrapped | (wanted == 0)
        self._start = np.where(lossless, np.minimum(self._start, wanted), self._start)
        self._wrapped &= wanted > 0
        self._lengths = wanted

    def reset(self) -> None:
        """Forget everything; the buffers stay (what they hold is never seen again)."""
        self.rewind(0)

    def fork(self) -> Self:
        """Return an independent copy, as full as this one."""
        twin = copy.copy(self)
        twin.binding, twin._buffers = None, self._copies(self.capacity)
        twin._lengths, twin._start, twin._wrapped = self.lengths, self.start, self._wrapped.copy()
        return twin

    def grow(self, capacity: int) -> None:
        """Reallocate for `capacity` tokens a row, keeping what is cached; raises InputError when it is smaller.

        A window layer's ring changes size only while capacity limits it, and such a ring has never wrapped:
        slot p holds position p before and after. Old and new buffers exist together until the copy is done.
        """
        self.layout.check_sizes(self.batch, capacity, self.reserve, self.chunk)
        if capacity < self.capacity:
            raise InputError(f"cache capacity: found {capacity}, expected at least the present {self.capacity}")
        if capacity > self.capacity:
            self._buffers = self._copies(capacity)
            self.capacity, self.binding = capacity, None

    def close(self) -> None:
        """Free the buffers; the cache cannot be used any more."""
        self._buffers, self.binding = None, None

    def check_room(self, new_lengths: NDArray[np.int64]) -> None:
        """Refuse new tokens (B) that a row has no room for (padding never counts), or that the target cannot run."""
        self.layout.check_call(self._lengths, new_lengths)
        for row in np.flatnonzero(self._lengths + new_lengths > self.capacity):
            raise InputError(
                f"row {row}: {self._lengths[row]} cached + {new_lengths[row]} new tokens exceed the cache capacity of "
                f"{self.capacity}; make the cache larger, grow it, or rewind it"
            )

    def columns(self, remaining: int) -> int:
        """Return how many of `remaining` columns the next call of the graph may write, at least 1."""
        return self.layout.columns(remaining, self._lengths, self.capacity, self.chunk)

    def mark_writing(self, columns: int) -> None:
        """Record that a call is about to write `columns` columns on every row."""
        rings = [self.slots(layer) for layer in self.layers if layer.window > 0]
        self._start = np.maximum(self._start, self._lengths)
        if rings:
            self._wrapped |= self._lengths + columns > min(rings)

    def advance(self, new_lengths: NDArray[np.int64]) -> None:
        """Count the tokens (B) a call has written."""
        self._lengths = self._lengths + new_lengths

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _zeros(self, layer: CacheLayer) -> CacheBuffer:
        shape = (self.batch, layer.kv_heads, self.slots(layer), layer.head_dim)  # (B, K, C, D)
        return CacheBuffer.zeros(self._onnxruntime, shape, self.dtype, self.device)

    def _copies(self, capacity: int) -> tuple[tuple[CacheBuffer, CacheBuffer], ...]:
        longest = int(self._lengths.max())
        copies = []
        for layer, (key, value) in zip(self.layers, self.buffers, strict=True):
            slots = self.layout.slots(layer, self.batch, capacity, self.reserve, self.chunk)
            # Unless a ring has wrapped, no slot from the longest row's end on is ever seen before it is rewritten.
            used = self.slots(layer) if layer.window > 0 and self._wrapped.any() else longest
            copies.append((self._copied(key, slots, used), self._copied(value, slots, used)))
        return tuple(copies)

    def _copied(self, buffer: CacheBuffer, slots: int, used: int) -> CacheBuffer:
        return CacheBuffer.of(self._onnxruntime, buffer.copied(slots, used), self.dtype, self.device)


def _row_integers(values: ArrayLike, what: str, batch: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.shape not in ((), (batch,)):
        raise InputError(
            f"{what}: found {array.dtype} of shape {array.shape}, expected one integer, or {batch} (one a row)"
        )
    return np.broadcast_to(array, (batch,)).astype(np.int64)

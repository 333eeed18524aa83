"""CachePart: the first rows of a KV cache, as the calls of a graph on them find and leave them.

A rows of the part, S columns of a call. A part of all rows is the whole cache.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.cache_buffer import drop_first, find_overflow
from gptoss_onnx.runtime.cache_rows import CacheRows

if TYPE_CHECKING:
    from gptoss_onnx.runtime.kv_cache import KVCache


class CachePart:
    """The first `size` rows of a cache; made by `KVCache.part` and used while the cache is in use.

    Attributes:
        cache: whose rows they are.
        size: A.
    """

    def __init__(self, cache: "KVCache", rows: CacheRows, size: int) -> None:
        self.cache, self.size, self._rows = cache, size, rows

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens cached, (A); a copy."""
        return self._rows.lengths[: self.size].copy()

    @property
    def window_starts(self) -> NDArray[np.int64]:
        """First tokens of each row that window layers hold no more, (A); a copy. 0 for rings."""
        return self._rows.window_starts[: self.size].copy()

    def check_call(self, new_lengths: NDArray[np.int64], longest: int) -> None:
        """Refuse new tokens (A) that cannot run, or that a row has no room for.

        Padding never counts. No row may have more than `longest` tokens, whatever the capacity.
        """
        self._rows.check_sound()
        self.cache.layout.check_part(self.size, self.cache.batch)
        self.cache.layout.check_call(self.lengths, new_lengths)
        self._rows.check_room(new_lengths, self.cache.capacity, longest)

    def columns(self, remaining: int) -> int:
        """Return how many of `remaining` columns the next call of the graph may write, at least
        1.
        """
        cache = self.cache
        return cache.layout.columns(remaining, self.lengths, cache.capacity, cache.chunk)

    def mark_writing(self, columns: int) -> None:
        """Record that a call is about to write `columns` columns on every row."""
        cache, lengths, starts = self.cache, self.lengths, self.window_starts
        windows = [cache.slots(layer) for layer in cache.layers if layer.window > 0]
        if not windows:
            self._rows.mark_writing(np.zeros(self.size, np.bool_))
            return
        slots = min(windows)
        moved = cache.layout.window_starts(lengths, starts, columns, slots, cache.reserve)
        if (moved != starts).any():
            self._drop(moved)
        self._rows.mark_writing(cache.layout.wraps(lengths, moved, columns, slots))

    def advance(self, new_lengths: NDArray[np.int64], input_ids: NDArray[np.int64]) -> None:
        """Count the tokens (A) a call has written, the first of each row of `input_ids` (A, S)."""
        self._rows.advance(new_lengths, input_ids)

    def mark_failed(self) -> None:
        """Record that a call was cut off while it wrote, by an error or by the user.

        Where the target can rewind, the tokens that were held before are as they were, and the call
        may be tried again. The windows of target `ort` may have moved on in some layers: then only
        `reset` helps.
        """
        has_windows = any(layer.window for layer in self.cache.layers)
        if not self.cache.layout.rewinds and self._rows.lengths.any() and has_windows:
            self._rows.damage = "a call was cut off after it had moved the windows of target ort"

    def find_overflow(self) -> str | None:
        """Say where a float16 cache first holds a number that is not finite, and let the cache be
        refused until it is reset; None where it holds none.
        """
        where = find_overflow(self.cache.buffers)
        if where is not None:
            self._rows.damage = f"found numbers that are not finite ({where})"
        return where

    def _drop(self, starts: NDArray[np.int64]) -> None:
        """Forget each row's tokens before `starts` (A) in window layers, where they are not seen
        any more.
        """
        rows, part = self._rows, slice(self.size)
        # a staged cache has no buffers here
        pairs = zip(self.cache.layers, self.cache.buffers, strict=False)
        windows = [pair for layer, pair in pairs if layer.window > 0]
        gone, held = starts - rows.window_starts[part], self.lengths - rows.window_starts[part]
        rows.damage = "a call was cut off while it moved the windows of target ort"
        drop_first(windows, gone, held)
        rows.window_starts[part], rows.damage = starts, None

"""KVCache: the key and value buffers of a batch of sequences, and what each row of them holds.

B batch, K kv heads, C slots of a layer, D head dim. The layout says how many slots there are
and what lies in them, see `gptoss_onnx.runtime.cache_layout`.
"""

import copy
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.arguments import row_integers
from gptoss_onnx.runtime.cache_buffer import CacheBuffer, drop_first, find_overflow
from gptoss_onnx.runtime.cache_layout import CacheLayout
from gptoss_onnx.runtime.cache_rows import CacheRows
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.exclusive import Exclusive

if TYPE_CHECKING:
    from gptoss_onnx.runtime.binding import Binding

PREFILL_CHUNK = 512


class KVCache(Closing):
    """Zero-filled buffers for `batch` rows of up to `capacity` tokens each; made by
    `Session.new_cache`.

    A context manager; leaving it frees the buffers. One call at a time may use it: while one thread
    runs a call, `forward`, `rewind`, `reset`, `fork`, `grow` and `close` raise InputError in any
    other.

    Attributes:
        batch: rows.
        capacity: tokens each row may hold.
        reserve: tokens a row can always be rewound below `start`, even where window layers have
            wrapped.
        chunk: most columns one call of the graph writes; longer inputs are split.
        layers: the package's cache layers.
        layout: what the package's target expects of the buffers.
        use: entered by each call that reads or changes the buffers; refuses a second one.
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
        self.batch, self.capacity, self.reserve, self.chunk = map(
            int, (batch, capacity, reserve, chunk)
        )
        self.use = _exclusive()
        # made and used by the session; void once the buffers change
        self.binding: Binding | None = None
        self._onnxruntime = onnxruntime
        self._buffers: tuple[tuple[CacheBuffer, CacheBuffer], ...] | None = self._zeros()
        self._rows = CacheRows(self.batch, self.capacity)
        self._damage: str | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens cached, (B); a copy."""
        return self._rows.lengths.copy()

    @property
    def start(self) -> NDArray[np.int64]:
        """Largest position at which a call began on each row since its reset, (B); a copy."""
        return self._rows.start.copy()

    @property
    def window_starts(self) -> NDArray[np.int64]:
        """First tokens of each row that window layers hold no more, (B); a copy. 0 for rings."""
        return self._rows.window_starts.copy()

    @property
    def kept(self) -> int:
        """First tokens that every window layer keeps: a row can always be rewound to so few."""
        return min((layer.sink_tokens for layer in self.layers if layer.window > 0), default=0)

    @property
    def rewind_limit(self) -> NDArray[np.int64]:
        """Smallest length above `kept` that each row can be rewound to, (B): see `rewind`."""
        if not self.layout.rewinds:
            return self.lengths
        return self._rows.limit(self.reserve)

    @property
    def tokens(self) -> list[NDArray[np.int64]]:
        """The token ids each row holds, oldest first; copies, one array for each row.

        They are what the next token attends to, so the repetition penalty counts them. A batch of
        target `ort` for ONNX Runtime 1.28 runs the last token of a finished row again with each
        step: its row shows it again, too.
        """
        return [self.row_tokens(row).copy() for row in range(self.batch)]

    def row_tokens(self, row: int) -> NDArray[np.int64]:
        """Return the token ids of one row, oldest first: a view that later calls change."""
        self.buffers  # noqa: B018 - refuses a closed cache
        return self._rows.tokens(row)

    @property
    def buffers(self) -> tuple[tuple[CacheBuffer, CacheBuffer], ...]:
        """Key and value buffer of each layer, (B, K, C, D); raises InputError once the cache is
        closed.
        """
        if self._buffers is None:
            raise InputError(
                "cache: found it closed, expected an open one; make another with session.new_cache"
            )
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

        While no window layer has wrapped on a row, nothing is lost and any length is allowed.
        Afterwards slots are reused and a row goes back to `start - reserve` at most, `start` being
        the largest position at which any call on it began: repeated small rewinds would otherwise
        eat the window. 0 to `kept` is always possible: so short a row sees nothing of the rings. In
        target `ort` for ONNX Runtime 1.28, 0 is the only length, for all rows together.

        Raises InputError naming the first row that cannot; nothing is changed then.
        """
        with self.use:
            self._rewind(lengths)

    def reset(self) -> None:
        """Forget everything; the buffers stay (what they hold is never seen again)."""
        self.rewind(0)

    def fork(self) -> Self:
        """Return an independent copy, as full as this one."""
        with self.use:
            twin = copy.copy(self)
            twin.use, twin.binding = _exclusive(), None
            twin._buffers, twin._rows = self._copies(self.capacity), self._rows.copy()
            return twin

    def grow(self, capacity: int) -> None:
        """Reallocate for `capacity` tokens a row, keeping what is cached; raises InputError when it
        is smaller.

        A window layer's ring changes size only while capacity limits it, and such a ring has never
        wrapped: slot p holds position p before and after. Old and new buffers exist together until
        the copy is done.
        """
        self.layout.check_sizes(self.batch, capacity, self.reserve, self.chunk)
        capacity = int(capacity)
        with self.use:
            if capacity < self.capacity:
                raise InputError(
                    f"cache capacity: found {capacity}, expected at least the present "
                    f"{self.capacity}"
                )
            self.buffers  # noqa: B018 - refuses a closed cache
            if capacity > self.capacity:
                rows = self._rows.grown(capacity)
                self._buffers = self._copies(capacity)
                self._rows, self.capacity, self.binding = rows, capacity, None

    def close(self) -> None:
        """Free the buffers and the token ids; the cache cannot be used any more."""
        with self.use:
            self._buffers, self.binding = None, None
            self._rows.drop_tokens()

    def check_call(self, new_lengths: NDArray[np.int64], longest: int) -> None:
        """Refuse new tokens (B) that cannot run, or that a row has no room for.

        Padding never counts. No row may have more than `longest` tokens, whatever the capacity.
        """
        if self._damage is not None:
            raise InputError(f"cache: {self._damage}; reset it, or make another")
        self.layout.check_call(self._rows.lengths, new_lengths)
        self._rows.check_room(new_lengths, self.capacity, longest)

    def columns(self, remaining: int) -> int:
        """Return how many of `remaining` columns the next call of the graph may write, at least
        1.
        """
        return self.layout.columns(remaining, self._rows.lengths, self.capacity, self.chunk)

    def mark_writing(self, columns: int) -> None:
        """Record that a call is about to write `columns` columns on every row."""
        rows = self._rows
        slots = min((self.slots(layer) for layer in self.layers if layer.window > 0), default=None)
        if slots is None:
            rows.mark_writing(np.zeros(self.batch, np.bool_))
            return
        lengths, starts = rows.lengths, rows.window_starts
        moved = self.layout.window_starts(lengths, starts, columns, slots, self.reserve)
        if (moved != starts).any():
            self._drop(moved)
        rows.mark_writing(self.layout.wraps(lengths, moved, columns, slots))

    def advance(self, new_lengths: NDArray[np.int64], input_ids: NDArray[np.int64]) -> None:
        """Count the tokens (B) a call has written, the first of each row of `input_ids` (B, S)."""
        self._rows.advance(new_lengths, input_ids)

    def mark_failed(self) -> None:
        """Record that a call was cut off while it wrote, by an error or by the user.

        Where the target can rewind, the tokens that were held before are as they were, and the call
        may be tried again. The windows of target `ort` may have moved on in some layers: then only
        `reset` helps.
        """
        if (
            not self.layout.rewinds
            and self._rows.lengths.any()
            and any(layer.window for layer in self.layers)
        ):
            self._damage = "a call was cut off after it had moved the windows of target ort"

    def overflow(self) -> str | None:
        """Say where a float16 cache first holds a number that is not finite; None where it holds
        none.
        """
        return find_overflow(self.buffers)

    def mark_overflow(self, where: str) -> None:
        """Record that the buffers hold numbers that are not finite; `reset` zeroes them."""
        self._damage = f"found numbers that are not finite ({where})"

    def _rewind(self, lengths: ArrayLike) -> None:
        self.buffers  # noqa: B018 - refuses a closed cache
        wanted = row_integers(lengths, "rewind lengths", self.batch)
        self.layout.check_rewind(self._rows.lengths, wanted)
        self._rows.rewind(wanted, self.kept, self.reserve)
        if self._damage is not None and not wanted.any():
            # Zero times such a number is not finite either: it must not stay, not even unseen.
            self._buffers, self.binding = self._zeros(), None
            self._damage = None

    def _drop(self, starts: NDArray[np.int64]) -> None:
        """Forget each row's tokens before `starts` (B) in window layers, where they are not seen
        any more.
        """
        rows = self._rows
        pairs = zip(self.layers, self.buffers, strict=True)
        windows = [pair for layer, pair in pairs if layer.window > 0]
        gone, held = starts - rows.window_starts, rows.lengths - rows.window_starts
        self._damage = "a call was cut off while it moved the windows of target ort"
        drop_first(windows, gone, held)
        rows.window_starts, self._damage = starts, None

    def _zeros(self) -> tuple[tuple[CacheBuffer, CacheBuffer], ...]:
        def buffer(layer: CacheLayer) -> CacheBuffer:
            shape = (self.batch, layer.kv_heads, self.slots(layer), layer.head_dim)  # (B, K, C, D)
            return CacheBuffer.zeros(self._onnxruntime, shape, self.dtype, self.device)

        return tuple((buffer(layer), buffer(layer)) for layer in self.layers)

    def _copies(self, capacity: int) -> tuple[tuple[CacheBuffer, CacheBuffer], ...]:
        longest = int(self._rows.lengths.max())
        copies = []
        for layer, (key, value) in zip(self.layers, self.buffers, strict=True):
            slots = self.layout.slots(layer, self.batch, capacity, self.reserve, self.chunk)
            # Unless a ring has wrapped, no slot from the longest row's end on is ever seen before
            # it is rewritten.
            used = self.slots(layer) if layer.window > 0 and self._rows.wrapped.any() else longest
            copies.append((self._copied(key, slots, used), self._copied(value, slots, used)))
        return tuple(copies)

    def _copied(self, buffer: CacheBuffer, slots: int, used: int) -> CacheBuffer:
        return CacheBuffer.of(
            self._onnxruntime, buffer.copied(slots, used), self.dtype, self.device
        )


def expect_cache(cache: object, optional: bool = False) -> None:
    """Refuse what is not a KVCache, nor None if the argument is `optional`; raises InputError."""
    if not (isinstance(cache, KVCache) or (cache is None and optional)):
        raise InputError(f"cache: found {type(cache).__name__}, expected one that new_cache made")


def _exclusive() -> Exclusive:
    return Exclusive("cache", "give each thread a cache of its own")

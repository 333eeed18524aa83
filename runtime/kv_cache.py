"""KVCache: the key and value buffers of a batch of sequences, and what each row of them holds.

B batch, K kv heads, C slots of a layer, D head dim. The layout says how many slots there are
and what lies in them, see `gptoss_onnx.runtime.cache_layout`.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.arguments import integer, row_integers
from gptoss_onnx.runtime.cache_buffer import BufferPair
from gptoss_onnx.runtime.cache_layout import CacheLayout
from gptoss_onnx.runtime.cache_part import CachePart
from gptoss_onnx.runtime.cache_rows import CacheRows
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.exclusive import Exclusive
from gptoss_onnx.runtime.layer_buffers import LayerBuffers
from gptoss_onnx.runtime.row_moves import copy_row, load_row, saved_row
from gptoss_onnx.runtime.row_state import RowState

if TYPE_CHECKING:
    from gptoss_onnx.package import Package
    from gptoss_onnx.runtime.binding import Binding
    from gptoss_onnx.runtime.session import Session

PREFILL_CHUNK = 512


class KVCache(Closing):
    """Zero-filled buffers for `batch` rows of up to `capacity` tokens each; made by
    `Session.new_cache`.

    A context manager; leaving it frees the buffers. One call at a time may use it: while one thread
    runs a call, `forward` and all that changes or copies what the cache holds raise InputError in
    any other.

    Attributes:
        batch: rows.
        capacity: tokens each row may hold.
        reserve: tokens a row can always be rewound below `start`, even where window layers have
            wrapped.
        chunk: most columns one call of the graph writes; longer inputs are split.
        layers: the package's cache layers.
        layout: what the package's target expects of the buffers.
        use: entered by each call that reads or changes the buffers; refuses a second one.
        kind: makes the buffers.
    """

    kind: ClassVar[type[LayerBuffers]] = LayerBuffers

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
        # by how many rows they run, made and used by the session; void once the buffers change
        self.bindings: Mapping[int, Binding] = {}
        self._made = self.kind(
            onnxruntime,
            self.layers,
            dtype,
            layout,
            self.batch,
            self.reserve,
            self.chunk,
            device,
        )
        self._buffers: tuple[BufferPair, ...] | None = self._made.zeros(self.capacity)
        self._rows = CacheRows(self.batch, self.capacity)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens cached, (B); a copy."""
        return self._rows.lengths.copy()

    @property
    def start(self) -> NDArray[np.int64]:
        """Largest position at which a call began on each row since its reset, (B); a copy.

        After `load_row` it is as if a call had begun `reserve` tokens after what the row can be
        rewound to, and 0 where it can be rewound to anything.
        """
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
    def buffers(self) -> tuple[BufferPair, ...]:
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
        return self._made.slots(layer, self.capacity)

    def rewind(self, lengths: ArrayLike) -> None:
        """Forget each row's tokens from position `lengths` on; one integer, or one a row.

        Any length is allowed while no window layer has wrapped on a row. After that, slots are
        reused, and a row can go back to `start - reserve`. `start` is the largest position at which
        any call on the row began; without it, repeated small rewinds would use up the window.
        Lengths from 0 to `kept` are always allowed: a row that short sees nothing of the rings. In
        target `ort` for ONNX Runtime 1.28, 0 is the only length, for all rows together.

        Raises InputError naming the first row that cannot; nothing is changed then.
        """
        with self.use:
            self._rewind(lengths)

    def reachable(self, row: int, length: int) -> int:
        """Return the largest length up to `length` that a row can be rewound to; the row holds at
        least `length` tokens.
        """
        return length if length >= self.rewind_limit[row] else min(length, self.kept)

    def reset(self) -> None:
        """Forget everything; the buffers stay (what they hold is never seen again)."""
        self.rewind(0)

    def fork(self) -> Self:
        """Return an independent copy, as full as this one."""
        with self.use:
            twin = copy.copy(self)
            twin.use, twin.bindings = _exclusive(), {}
            twin._buffers, twin._rows = self._copies(self.capacity), self._rows.copy()
            return twin

    def save_row(self, row: int, length: int | None = None) -> RowState:
        """Return a copy of the first `length` tokens of a row, of all if omitted.

        The copy holds what later tokens see. Of window layers that have wrapped it holds enough to
        be rewound by `reserve`. Any cache of the same package can load it.

        Raises InputError where the row could not be rewound to `length`; see `rewind`.
        """
        with self.use:
            return saved_row(self, self._rows, self._row("row", row), length)

    def load_row(self, row: int, state: RowState) -> None:
        """Let a row hold what `state` holds, instead of what it held.

        It can be rewound as far as what was saved and this cache's window layers reach; see
        `rewind_limit`. In target `ort` for ONNX Runtime 1.28 the cache must have one row.

        Raises InputError for a state of another package or longer than the capacity; nothing is
        changed then.
        """
        with self.use:
            load_row(self, self._rows, self._row("row", row), state)

    def save(self, path: str | os.PathLike[str], source: "Session | Package", row: int = 0) -> None:
        """Write what a row holds to a file, of this cache's session or package; see `RowState`.

        Raises InputError and PackageError as `save_row` and `RowState.save`.
        """
        self.save_row(row).save(path, source)

    def load(self, path: str | os.PathLike[str], source: "Session | Package", row: int = 0) -> None:
        """Let a row hold what a file of the same package holds, instead of what it held.

        Raises PackageError as `RowState.open`, and InputError as `load_row`.
        """
        self.load_row(row, RowState.open(path, source))

    def move_row(self, source: int, target: int) -> None:
        """Let row `target` hold what row `source` holds, instead of what it held; `source` is empty
        then.

        Not in target `ort` for ONNX Runtime 1.28. Raises InputError.
        """
        with self.use:
            source, target = self._row("source", source), self._row("target", target)
            copy_row(self, self._rows, source, target)

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
                self._rows, self.capacity, self.bindings = rows, capacity, {}

    def close(self) -> None:
        """Free the buffers and the token ids; the cache cannot be used any more."""
        with self.use:
            self._buffers, self.bindings = None, {}
            self._rows.drop_tokens()

    def part(self, rows: int | None = None) -> CachePart:
        """Return the first `rows` rows, all if omitted, for calls of a graph on them."""
        return CachePart(self, self._rows, self.batch if rows is None else rows)

    def _rewind(self, lengths: ArrayLike) -> None:
        self.buffers  # noqa: B018 - refuses a closed cache
        wanted = row_integers(lengths, "rewind lengths", self.batch)
        self.layout.check_rewind(self._rows.lengths, wanted)
        self._rows.rewind(wanted, self.kept, self.reserve)
        if self._rows.damage is not None and not wanted.any():
            # Zero times such a number is not finite either: it must not stay, not even unseen.
            self._buffers, self.bindings = self._made.zeros(self.capacity), {}
            self._rows.damage = None

    def _copies(self, capacity: int) -> tuple[BufferPair, ...]:
        longest, wrapped = int(self._rows.lengths.max()), bool(self._rows.wrapped.any())
        return self._made.copies(self.buffers, self.capacity, capacity, longest, wrapped)

    def _row(self, name: str, row: int) -> int:
        return integer(name, row, 0, self.batch - 1)


def expect_cache(cache: object, optional: bool = False) -> None:
    """Refuse what is not a KVCache, nor None if the argument is `optional`; raises InputError."""
    if not (isinstance(cache, KVCache) or (cache is None and optional)):
        raise InputError(f"cache: found {type(cache).__name__}, expected one that new_cache made")


def _exclusive() -> Exclusive:
    return Exclusive("cache", "give each thread a cache of its own")

"""CacheRows: what each row of a KV cache holds, and how far it can be rewound.

B batch. The buffers are the cache's; here are lengths, token ids and the marks that calls leave.
"""

import copy
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.cache_buffer import zeros

Integers = NDArray[np.int64]


class RowMarks(NamedTuple):
    """What calls leave on one row beside its tokens; see `CacheRows`."""

    start: int
    wrapped: bool
    window_start: int


class CacheRows:
    """The rows of one cache.

    Attributes:
        lengths: tokens cached, (B).
        start: largest position at which a call began on each row since its reset, (B).
        wrapped: whether a window layer has lost tokens of a row, (B).
        window_starts: first tokens that window layers hold no more, (B); 0 where these are rings.
        damage: what is wrong with the buffers since a call failed, None where nothing is.
    """

    def __init__(self, batch: int, capacity: int) -> None:
        self.lengths = np.zeros(batch, np.int64)
        self.start = np.zeros(batch, np.int64)
        self.wrapped = np.zeros(batch, np.bool_)
        self.window_starts = np.zeros(batch, np.int64)
        self.damage: str | None = None
        self._tokens = _token_store(batch, capacity)

    def tokens(self, row: int) -> Integers:
        """Return the token ids of one row, oldest first: a view that later calls change."""
        return self._tokens[row, : self.lengths[row]]

    def copy(self) -> Self:
        """Return rows that hold the same and go their own way."""
        twin = copy.copy(self)
        twin.lengths, twin.start = self.lengths.copy(), self.start.copy()
        twin.wrapped, twin._tokens = self.wrapped.copy(), self._tokens.copy()
        twin.window_starts = self.window_starts.copy()
        return twin

    def grown(self, capacity: int) -> Self:
        """Return these rows with room for `capacity` tokens each, no fewer than now."""
        twin = copy.copy(self)
        twin._tokens = _token_store(self.lengths.size, capacity)
        twin._tokens[:, : self._tokens.shape[1]] = self._tokens
        return twin

    def drop_tokens(self) -> None:
        """Free the token ids."""
        self._tokens = self._tokens[:, :0].copy()

    def limit(self, reserve: int) -> Integers:
        """Return the smallest length above what window layers keep that each row can go back to."""
        return np.where(self.wrapped, np.clip(self.start - reserve, 0, self.lengths), 0)

    def check_sound(self) -> None:
        """Refuse buffers that hold what no call may see; raises InputError."""
        if self.damage is not None:
            raise InputError(f"cache: {self.damage}; reset it, or make another")

    def check_room(self, new_lengths: Integers, capacity: int, longest: int) -> None:
        """Refuse new tokens of the first rows that do not fit.

        Raises InputError naming the first row that would have more than `longest`, the most that
        the model takes, or else more than the cache's `capacity`.
        """
        lengths = self.lengths[: new_lengths.size]
        for limit, exceeded in (
            (longest, f"{longest}, the longest sequence that this model takes; rewind the cache"),
            (
                capacity,
                f"the cache capacity of {capacity}; make the cache larger, grow it, or rewind it",
            ),
        ):
            for row in np.flatnonzero(lengths + new_lengths > limit):
                raise InputError(
                    f"row {row}: {lengths[row]} cached + {new_lengths[row]} new tokens exceed "
                    f"{exceeded}"
                )

    def mark_writing(self, wraps: NDArray[np.bool_]) -> None:
        """Record that a call is about to write to the first rows (A), and in which of them window
        layers lose tokens.
        """
        part = slice(wraps.size)
        self.start[part] = np.maximum(self.start[part], self.lengths[part])
        self.wrapped[part] |= wraps

    def advance(self, new_lengths: Integers, input_ids: Integers) -> None:
        """Count the tokens a call has written to the first rows (A): the first of each row of
        `input_ids` (A, S).
        """
        for row, new in enumerate(new_lengths):
            begin = self.lengths[row]
            self._tokens[row, begin : begin + new] = input_ids[row, :new]
        self.lengths[: new_lengths.size] += new_lengths

    def check_cut(self, row: int, wanted: int, kept: int, reserve: int, verb: str) -> None:
        """Refuse to use the first `wanted` tokens of a row without the others; raises InputError.

        Every window layer keeps the first `kept`.
        """
        cached, limit = int(self.lengths[row]), int(self.limit(reserve)[row])
        if not 0 <= wanted <= cached:
            raise InputError(
                f"row {row}: cannot {verb} {wanted}; it holds {cached} tokens; allowed is 0 to "
                f"{cached}"
            )
        if kept < wanted < limit:
            raise InputError(
                f"row {row}: cannot {verb} {wanted}: window layers have overwritten what it would "
                f"see; allowed is {limit} to {cached}, or {f'0 to {kept}' if kept else 0}; a cache "
                f"with a reserve above {reserve} goes further"
            )

    def rewind(self, wanted: Integers, kept: int, reserve: int) -> None:
        """Forget each row's tokens from `wanted` (B) on; every window layer keeps the first `kept`.

        Raises InputError naming the first row that cannot; nothing is changed then.
        """
        for row, target in enumerate(wanted):
            self.check_cut(row, int(target), kept, reserve, "rewind to")
        # Where nothing was lost the undone calls left no trace: their columns lie in slots that
        # will be rewritten before they can be seen. They need not count in `start` any more.
        lossless = ~self.wrapped | (wanted <= kept)
        self.start = np.where(lossless, np.minimum(self.start, wanted), self.start)
        self.wrapped = self.wrapped & (wanted > kept)
        self.window_starts = np.where(self.wrapped, self.window_starts, 0)
        self.lengths = wanted

    def empty(self, row: int) -> None:
        """Forget a row."""
        self.lengths[row] = self.start[row] = self.window_starts[row] = 0
        self.wrapped[row] = False

    def fill(self, row: int, tokens: Integers, marks: RowMarks) -> None:
        """Let a row hold `tokens` (n), no more than there is room for, and these marks."""
        self._tokens[row, : tokens.size] = tokens
        self.lengths[row] = tokens.size
        self.start[row], self.wrapped[row] = marks.start, marks.wrapped
        self.window_starts[row] = marks.window_start

    def marks(self, row: int) -> RowMarks:
        """Return the marks of a row."""
        start, window_start = int(self.start[row]), int(self.window_starts[row])
        return RowMarks(start, bool(self.wrapped[row]), window_start)


def common_prefix(one: NDArray[np.integer[Any]], other: NDArray[np.integer[Any]]) -> int:
    """Return how many first tokens two sequences share."""
    size = min(one.size, other.size)
    differ = one[:size] != other[:size]
    return int(differ.argmax()) if differ.any() else size


def _token_store(batch: int, capacity: int) -> Integers:
    return zeros((batch, capacity), np.int64, "the cache's token ids")

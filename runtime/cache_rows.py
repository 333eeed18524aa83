"""CacheRows: what each row of a KV cache holds, and how far it can be rewound.

B batch. The buffers are the cache's; here are lengths, token ids and the marks that calls leave.
"""

import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.cache_buffer import zeros

Integers = NDArray[np.int64]


class CacheRows:
    """The rows of one cache.

    Attributes:
        lengths: tokens cached, (B).
        start: largest position at which a call began on each row since its reset, (B).
        wrapped: whether a window layer has lost tokens of a row, (B).
        window_starts: first tokens that window layers hold no more, (B); 0 where these are rings.
    """

    def __init__(self, batch: int, capacity: int) -> None:
        self.lengths = np.zeros(batch, np.int64)
        self.start = np.zeros(batch, np.int64)
        self.wrapped = np.zeros(batch, np.bool_)
        self.window_starts = np.zeros(batch, np.int64)
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

    def check_room(self, new_lengths: Integers, capacity: int, longest: int) -> None:
        """Refuse new tokens (B) that do not fit.

        Raises InputError naming the first row that would have more than `longest`, the most that
        the model takes, or else more than the cache's `capacity`.
        """
        for limit, exceeded in (
            (longest, f"{longest}, the longest sequence that this model takes; rewind the cache"),
            (
                capacity,
                f"the cache capacity of {capacity}; make the cache larger, grow it, or rewind it",
            ),
        ):
            for row in np.flatnonzero(self.lengths + new_lengths > limit):
                raise InputError(
                    f"row {row}: {self.lengths[row]} cached + {new_lengths[row]} new tokens exceed "
                    f"{exceeded}"
                )

    def mark_writing(self, wraps: NDArray[np.bool_]) -> None:
        """Record that a call is about to write, and in which rows (B) window layers lose tokens."""
        self.start = np.maximum(self.start, self.lengths)
        self.wrapped |= wraps

    def advance(self, new_lengths: Integers, input_ids: Integers) -> None:
        """Count the tokens (B) a call has written, the first of each row of `input_ids` (B, S)."""
        for row, (begin, new) in enumerate(zip(self.lengths, new_lengths, strict=True)):
            self._tokens[row, begin : begin + new] = input_ids[row, :new]
        self.lengths = self.lengths + new_lengths

    def rewind(self, wanted: Integers, kept: int, reserve: int) -> None:
        """Forget each row's tokens from `wanted` (B) on; every window layer keeps the first `kept`.

        Raises InputError naming the first row that cannot; nothing is changed then.
        """
        limit = self.limit(reserve)
        for row, (cached, target) in enumerate(zip(self.lengths, wanted, strict=True)):
            if not 0 <= target <= cached:
                raise InputError(
                    f"row {row}: cannot rewind to {target}; it holds {cached} tokens; allowed is 0 "
                    f"to {cached}"
                )
            if kept < target < limit[row]:
                raise InputError(
                    f"row {row}: cannot rewind to {target}: window layers have overwritten what it "
                    f"would see; allowed is {limit[row]} to {cached}, or "
                    f"{f'0 to {kept}' if kept else 0}; a cache with a reserve above {reserve} goes "
                    "further"
                )
        # Where nothing was lost the undone calls left no trace: their columns lie in slots that
        # will be rewritten before they can be seen. They need not count in `start` any more.
        lossless = ~self.wrapped | (wanted <= kept)
        self.start = np.where(lossless, np.minimum(self.start, wanted), self.start)
        self.wrapped = self.wrapped & (wanted > kept)
        self.window_starts = np.where(self.wrapped, self.window_starts, 0)
        self.lengths = wanted


def _token_store(batch: int, capacity: int) -> Integers:
    return zeros((batch, capacity), np.int64, "the cache's token ids")

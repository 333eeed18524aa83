"""Rows that go on in one cache by some tokens each, whichever case drives them.

Legend: B rows, S new tokens.
"""

from collections.abc import Sequence

import numpy as np

from gptoss_onnx.validation.cases.driven import DrivenCache
from gptoss_onnx.validation.cases.driving import Drive, Pair
from gptoss_onnx.validation.judging.expected import Scored
from gptoss_onnx.validation.judging.metrics import Logits


class Rows:
    """The rows of one cache, which go on by some tokens each, and the logits that this gave.

    Attributes:
        cache: where they go on; another one that holds the same may take its place.
        left: tokens that each row has still to run.
    """

    def __init__(
        self, drive: Drive, cache: DrivenCache, length: int, calls: int, first: int = 0
    ) -> None:
        """Take the first `length` tokens of as many rows as the cache has, from the drive's row
        `first` on. The case makes so many `calls`, which share the logits that are compared.
        """
        self.cache = cache
        self.left = [length] * cache.batch
        self._drive, self._length, self._calls = drive, length, calls * cache.batch
        self._tokens = drive.rows(first + cache.batch)[first:]
        self._found: list[list[Logits]] = [[] for _ in self._tokens]
        self._places: list[list[int]] = [[] for _ in self._tokens]

    def go_on(self, new: Sequence[int]) -> None:
        """Run the next `new` tokens of each row (B), or as many as it has left, right-padded."""
        new = [min(count, left) for count, left in zip(new, self.left, strict=True)]
        size = max(new)
        if size == 0:
            return
        kept = len(self._drive.last(size, self._calls))
        ids, wanted, begins = [], [], []
        for tokens, count, left in zip(self._tokens, new, self.left, strict=True):
            begin = self._length - left
            ids.append(np.resize(tokens[begin : begin + count] or [0], size))
            wanted.append(max(0, count - kept) + np.arange(kept))
            begins.append(begin)
        alike = len(set(new)) == 1  # lengths are given only where they must be
        logits = self._drive.session.forward(ids, self.cache, None if alike else new, wanted)
        for row, count in enumerate(new):
            real = wanted[row][wanted[row] < count]
            self._found[row].append(logits[row, : len(real)])
            self._places[row] += list(begins[row] + real)
            self.left[row] -= count

    def pair(self) -> Pair:
        """Return what was found, row after row, with the reference's logits."""
        found = [piece for pieces in self._found for piece in pieces]
        ran = zip(self._tokens, self._places, strict=True)
        expected = [self._drive.expected.score(row)[places] for row, places in ran]
        return np.concatenate(found), Scored.join(expected)

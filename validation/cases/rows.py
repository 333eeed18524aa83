"""Rows that go on in one cache by some tokens each, whichever case drives them.

Legend: B rows, S new tokens.
"""

from collections.abc import Sequence

import numpy as np

from gptoss_onnx.validation.cases.driven import DrivenCache
from gptoss_onnx.validation.cases.driving import Drive, Pair
from gptoss_onnx.validation.judging.metrics import Logits
from gptoss_onnx.validation.judging.scored import Scored


class Rows:
    """The rows of one cache, which go on by some tokens each, and the logits that this gave.

    Attributes:
        cache: where they go on; another one that holds the same may take its place.
        left: tokens that each row has still to run.
    """

    def __init__(self, drive: Drive, cache: DrivenCache, length: int, first: int = 0) -> None:
        """Take the first `length` tokens of as many rows as the cache has, from the drive's row
        `first` on.
        """
        self.cache = cache
        self.left = [length] * cache.batch
        self._drive, self._length = drive, length
        self._tokens = drive.rows(first + cache.batch)[first:]
        self._found: list[list[Logits]] = [[] for _ in self._tokens]
        self._places: list[list[int]] = [[] for _ in self._tokens]

    def go_on(self, new: Sequence[int]) -> None:
        """Run the next `new` tokens of each row (B), or as many as it has left, right-padded."""
        new = [min(count, left) for count, left in zip(new, self.left, strict=True)]
        size = max(new)
        if size == 0:
            return
        ids, wanted = [], []
        begins = [self._length - left for left in self.left]
        for tokens, count, begin in zip(self._tokens, new, begins, strict=True):
            ids.append(np.resize(tokens[begin : begin + count] or [0], size))
            wanted.append(self._drive.compared_in(self._length, begin, begin + count))
        kept = np.zeros((len(new), max(map(len, wanted))), np.int64)  # all rows ask for as many
        for row, places in enumerate(wanted):
            kept[row, : len(places)] = places
        alike = len(set(new)) == 1  # lengths are given only where they must be
        logits = self._drive.session.forward(ids, self.cache, None if alike else new, kept)
        for row, (places, count) in enumerate(zip(wanted, new, strict=True)):
            self._found[row].append(logits[row, : len(places)])
            self._places[row] += list(begins[row] + places)
            self.left[row] -= count

    def pair(self) -> Pair:
        """Return what was found, row after row, with the reference's logits."""
        found = [piece for pieces in self._found for piece in pieces]
        ran = zip(self._tokens, self._places, strict=True)
        expected = [self._drive.expected.score(row)[places] for row, places in ran]
        return np.concatenate(found), Scored.join(expected)

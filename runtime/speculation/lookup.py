"""Lookup: guess that what followed the same tokens before follows them again.

This is prompt lookup decoding (A. Saxena, 2023). It costs nothing to speak of and needs no second
model. It pays where a text repeats what stands before it: quotes, edited code, extracts, loops.

T tokens of a row.
"""

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.sampling import RowSampler
from gptoss_onnx.runtime.speculation.guess import Guess
from gptoss_onnx.runtime.speculation.hit_rates import HitRates

LEAST_MATCH = 2  # tokens; a single one occurs somewhere in any text
LONGEST_MATCH = 32
# From so many matching tokens on another rate is kept, and what is expected of each at first.
BOUNDS = (2, 3, 5, 9)
EXPECTED = (0.3, 0.5, 0.7, 0.85)


class Lookup:
    """Guesses from the row's own tokens. What it would have guessed is compared with what was said
    also where nothing was run for it: so it knows what its guesses are worth.
    """

    explores = False
    each = 0.0

    def __init__(self) -> None:
        self._rates = HitRates(EXPECTED)
        self._found: list[int] = []
        self._matched = 0

    def read(self, tokens: NDArray[np.int64]) -> None:
        """There is nothing to prepare."""

    def look(self, tokens: NDArray[np.int64], most: int) -> list[float]:
        """Return the chances of the next tokens, `most` at most, after `tokens` (T)."""
        self._matched, self._found = repeated(tokens, max(most, 1))
        return [self._rates.of(self._kind(place)) for place in range(len(self._found))][:most]

    def guess(self, count: int, sampler: RowSampler) -> Guess:
        """Return the first `count` tokens."""
        return Guess(self._found[:count])

    def learn(self, said: list[int]) -> None:
        """Compare what was said after all with what was found."""
        for place, (found, token) in enumerate(zip(self._found, said, strict=False)):
            self._rates.record(self._kind(place), found == token)
            if found != token:
                break

    def close(self) -> None:
        """There is nothing to free."""

    def _kind(self, place: int) -> int:
        """Return which rate a token has that comes after `place` others which were right."""
        matched = self._matched + place
        return sum(matched >= bound for bound in BOUNDS) - 1


def repeated(tokens: NDArray[np.int64], count: int) -> tuple[int, list[int]]:
    """Return how many last ones of `tokens` (T) occur before, and the `count` tokens that followed
    there.

    It is the place where most tokens match, `LONGEST_MATCH` at most, and of several the last. A
    repetition that reaches the end goes on turning. 0 and no tokens where fewer than `LEAST_MATCH`
    occur before.
    """
    last = tokens.size - 1
    ends = np.flatnonzero(tokens[:last] == tokens[last])
    matched = min(1, ends.size)
    while matched < LONGEST_MATCH:
        longer = ends[ends >= matched]
        longer = longer[tokens[longer - matched] == tokens[last - matched]]
        if longer.size == 0:
            break
        ends, matched = longer, matched + 1
    if matched < LEAST_MATCH:
        return 0, []
    return matched, np.resize(tokens[ends[-1] + 1 :], count).tolist()

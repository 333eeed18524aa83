"""HitRates: how often guesses of several kinds were right of late."""

from collections.abc import Sequence

_WEIGHT = 4.0  # guesses that the first expectation counts for
_FADING = 0.97  # of a guess's weight with each later one: the last thirty or so count


class HitRates:
    """A fading average for each kind of guess."""

    def __init__(self, expected: Sequence[float]) -> None:
        self._hits = [_WEIGHT * share for share in expected]
        self._tries = [_WEIGHT] * len(expected)

    def of(self, kind: int) -> float:
        """Return the share of right guesses of a kind."""
        return self._hits[kind] / self._tries[kind]

    def record(self, kind: int, hit: bool) -> None:
        """Count a guess."""
        self._hits[kind] = _FADING * self._hits[kind] + hit
        self._tries[kind] = _FADING * self._tries[kind] + 1

"""CallCosts: what calls of a model cost by how many tokens they run, as measured."""

_SLOWEST = 0.5  # of one token's seconds: taken for one more token until a call has shown it
_SOON = 8  # calls: an average at first, then later ones count for an eighth


class CallCosts:
    """Fading averages of seconds, and estimates between and beyond them."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    @property
    def singles(self) -> int:
        """How many calls of one token were measured."""
        return self._counts.get(1, 0)

    def record(self, size: int, seconds: float) -> None:
        """Count a call of `size` tokens."""
        count = self._counts.get(size, 0) + 1
        self._counts[size] = count
        before = self._seconds.get(size, seconds)
        self._seconds[size] = before + (seconds - before) / min(count, _SOON)

    def seconds(self, size: int) -> float:
        """Return what a call of `size` tokens takes; some call of one token must be known.

        Between two measured sizes it is on the line through them, beyond the largest on the line
        through that and one token.
        """
        if size in self._seconds:
            return self._seconds[size]
        one = self._seconds[1]
        below = max(each for each in self._seconds if each < size)
        above = min((each for each in self._seconds if each > size), default=None)
        if above is not None:
            slope = (self._seconds[above] - self._seconds[below]) / (above - below)
        elif below > 1:
            slope = (self._seconds[below] - one) / (below - 1)
        else:
            slope = _SLOWEST * one
        return self._seconds[below] + max(slope, 0.0) * (size - below)

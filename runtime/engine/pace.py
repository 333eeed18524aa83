"""Pace: how fast an engine answers, measured, so that who is refused knows when to come again."""

import math

_NEWEST = 0.2  # weight of the newest measurement
_LONGEST = 60  # seconds: who waits longer than this had better ask


class Pace:
    """A running mean of the seconds that a request holds its slot.

    One thread measures, any may ask.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held: float | None = None  # seconds

    def measure(self, seconds: float) -> None:
        """Take note of how long a request has held its slot."""
        known = seconds if self._held is None else self._held
        self._held = known + _NEWEST * (seconds - known)

    def seconds_until_place(self) -> int:
        """Return after how many seconds the next request will probably have ended, 1 to 60.

        With all slots taken, one ends every mean time divided by the slots. 1 where nothing has
        been measured yet.
        """
        if self._held is None:
            return 1
        return min(_LONGEST, max(1, math.ceil(self._held / self._slots)))

"""Read typed values out of a JSON object and keep every problem, so that one error can name them
all.
"""

import math
from collections.abc import Mapping
from typing import Any

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.json_text import printable

LISTED = 20  # problems spelled out in one message; the rest are counted
LONGEST_LINE = 400  # letters of one problem; names and values of strangers can have megabytes
MOST = 2**31 - 1  # of a size: what int32 indices can hold


class Problems:
    """Everything found wrong with one thing; `check` raises once, with all of it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0

    def add(self, line: str) -> None:
        """Remember one problem: what it concerns, what was found and what was expected."""
        if len(self._lines) == LISTED:
            self._more += 1
            return
        shown = line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."
        self._lines.append(printable(shown))

    def check(self, where: str) -> None:
        """Raise `error(where)` if there is any problem."""
        if self._lines:
            raise self.error(where)

    def error(self, where: str) -> CheckpointError:
        """Return one line about `where` that lists the problems, the first twenty in words."""
        more = [f"and {self._more} more"] if self._more else []
        return CheckpointError(f"{where}: {'; '.join(self._lines + more)}")


class Fields:
    """Typed reads of one JSON object; what is missing or wrong is noted and replaced by a neutral
    value.

    The neutral values (0, 1.0, False, "") only keep the reading going: the caller checks `problems`
    last. `prefix` is put before key names in messages, for instance `rope_scaling.`.
    """

    def __init__(self, document: Mapping[str, Any], problems: Problems, prefix: str = "") -> None:
        self.document = document
        self.problems = problems
        self.prefix = prefix
        self._asked: set[str] = set()

    @property
    def asked(self) -> tuple[str, ...]:
        """Every key that was asked for, there or not, sorted."""
        return tuple(sorted(self._asked))

    @property
    def read(self) -> dict[str, Any]:
        """The keys that were asked for and are there, with their values, sorted by name."""
        return {key: self.document[key] for key in self.asked if key in self.document}

    def value(self, key: str) -> Any:
        """Return the value of a key, whatever it is; None for a missing one."""
        self._asked.add(key)
        return self.document.get(key)

    def has(self, key: str) -> bool:
        """Whether the key is present with a value other than null."""
        return self.value(key) is not None

    def wrong(self, key: str, expected: str) -> None:
        """Note that `key` holds something else than `expected`, or is missing."""
        found = f"found {shown(self.document[key])}" if key in self.document else "missing"
        self.problems.add(f"{self.prefix}{key}: {found}, expected {expected}")

    def integer(
        self,
        key: str,
        expected: str = "an integer of at least 1",
        most: int = MOST,
        absent: int | None = None,
    ) -> int:
        """A whole number from 1 to `most`; booleans and floats such as 24.0 are refused.

        A missing or null key reads as `absent`, if that is given. A wrong value reads as 0.
        """
        if absent is not None and not self.has(key):
            return absent
        value = self.value(key)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        is_more = isinstance(value, int) and value > most
        self.wrong(key, f"an integer of at most {most}" if is_more else expected)
        return 0

    def number(self, key: str, absent: float | None = None, *, above: float = 0.0) -> float:
        """A finite number > `above` as float; a missing or null key reads as `absent`, if that is
        given.
        """
        if absent is not None and not self.has(key):
            return absent
        value = self.value(key)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and _finite(value)
            and value > above
        ):
            return float(value)
        self.wrong(key, f"a finite number above {above:g}")
        return 1.0

    def boolean(self, key: str, absent: bool | None = None) -> bool:
        """`true` or `false`; a missing key reads as `absent`, if that is given."""
        value = self.value(key)
        if absent is not None and key not in self.document:
            return absent
        if isinstance(value, bool):
            return value
        self.wrong(key, "true or false")
        return False

    def one_of(self, key: str, allowed: tuple[str, ...], why: str = "") -> str:
        """One of the `allowed` strings; `why` is added to the message of any other value."""
        value = self.value(key)
        if isinstance(value, str) and value in allowed:
            return value
        self.wrong(key, " or ".join(repr(choice) for choice in allowed) + why)
        return ""

    def object(self, key: str) -> Mapping[str, Any]:
        """A JSON object; empty when wrong."""
        value = self.value(key)
        if isinstance(value, Mapping):
            return value
        self.wrong(key, "a JSON object")
        return {}


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer literal beyond the range of a double
        return False


def shown(value: object) -> str:
    """Return a JSON value as messages show it: in one line, and not more than 80 letters of it."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

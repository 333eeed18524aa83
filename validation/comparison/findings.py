"""Findings: what a comparison found, counted whole and listed in part."""

import time
from collections.abc import Iterable

from gptoss_onnx.json_text import printable
from gptoss_onnx.validation.report.document import Comparison, Finding

LISTED = 20  # findings of one comparison
_LONGEST = 160  # letters of one text, which may be a stranger's


class Findings:
    """What differs, in the order in which it was found.

    `begun` is when the comparison began, by `time.perf_counter`; None is now.
    """

    def __init__(self, begun: float | None = None) -> None:
        self._begun = time.perf_counter() if begun is None else begun
        self._listed: list[Finding] = []
        self._count = 0

    def add(self, where: str, what: str, found: object, expected: object) -> None:
        """Take a difference; of many the first ones are kept, and all are counted."""
        self._count += 1
        if len(self._listed) < LISTED:
            self._listed.append(Finding(*(shown(str(t)) for t in (where, what, found, expected))))

    def __bool__(self) -> bool:
        """Say whether anything differs."""
        return self._count > 0

    def comparison(self, name: str, description: str, notes: Iterable[str] = ()) -> Comparison:
        """Return the verdict, with the seconds since it was begun."""
        lines = list(notes)
        if self._count > len(self._listed):
            lines.append(f"{self._count} differences, of which the first {LISTED} are listed")
        return Comparison(
            name=name,
            description=description,
            state="failed" if self else "passed",
            seconds=time.perf_counter() - self._begun,
            findings=tuple(self._listed),
            note="; ".join(lines),
        )


def shown(text: str) -> str:
    """Return a text that is safe to print, of bounded length."""
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")

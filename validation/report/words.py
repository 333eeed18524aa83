"""Texts and numbers as the forms of a report spell them.

Names and notes may come from strangers: a package is a folder that somebody else has written.
"""

import math
import re
import shlex
from collections.abc import Mapping, Sequence

from gptoss_onnx.json_text import printable
from gptoss_onnx.validation.judging.limits import Limits
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.report.document import FAILURES, NOT_ASKED, Cell, Column, Report, State

MOST_LETTERS = 4000  # of one text in a page, a log or an XML file; the JSON document has all of it
SIGNS: Mapping[State, str] = {
    "passed": "✓",
    "failed": "✗",
    "refused": "⊘",
    "accepted": "≈",
    "not available": "–",
}
# Two code points at the end of each plane are no characters; XML 1.0 refuses those of the first.
_NOT_CHARACTERS = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")


def shown(text: str, most: int = MOST_LETTERS) -> str:
    """Return a text on its lines, with other control characters escaped, and at most so long."""
    lines = "\n".join(map(printable, text.split("\n")))
    safe = _NOT_CHARACTERS.sub("\ufffd", lines)
    if len(safe) <= most:
        return safe
    return f"{safe[:most]}… (cut off: {len(safe) - most} more letters in the JSON document)"


def on_one_line(text: str, most: int = MOST_LETTERS) -> str:
    """Return a text as `shown` does, on one line."""
    return shown(" ".join(text.split()), most)


def number(value: float | None) -> str:
    """Return an error as all forms spell it; nothing for one that is not known."""
    if value is None:
        return ""
    return format(value, ".1e") if math.isfinite(value) else "not finite"


def measured(difference: Difference | None, limits: Limits | None) -> str:
    """Return in one line what is known of a difference, beside the limits that it is held to."""
    if difference is None:
        return ""
    parts = []
    for name, value, most in (
        ("max abs", difference.max_abs, limits.max_abs if limits else math.inf),
        ("KL", difference.kl, limits.kl if limits else math.inf),
    ):
        if value is not None:
            relation = "≤" if value <= most else ">"
            held = f" {relation} {most:g}" if math.isfinite(most) else ""
            parts.append(f"{name} {number(value)}{held}")
    if difference.top1 is not None:
        parts.append(f"top-1 {difference.top1:.1%}")
    return f"{', '.join(parts)} over {difference.positions} positions"


def why(cell: Cell, column: Column | None) -> str:
    """Return in one line why a cell is as it is: what was said of it, then what was measured, then
    where it departs first.
    """
    parts = [
        cell.note,
        measured(cell.difference, column.limits if column else None),
        f"first divergence: {cell.divergence.text}" if cell.divergence else "",
    ]
    return on_one_line("; ".join(filter(None, parts))) or cell.state


def command(report: Report, column: Column | None = None, between: str = " ") -> str:
    """Return the command that judges a report's column again, or all of the report.

    `between` stands between its parts: a space, or what continues a command on the next line.
    """
    parts = [f"gptoss-onnx validate {_quoted(report.package)}"]
    parts.append(f"--reference {_quoted(report.reference)}")
    if report.suite == "full":
        parts.append("--suite full")
    if column is not None and column.options:
        parts.append(printable(column.options))
    return between.join(parts)


def summary(report: Report) -> str:
    """Return the verdict in one sentence."""
    if report.error is not None:
        return f"Nothing could be judged: {on_one_line(report.error)}"
    states = report.states()
    counted = ", ".join(f"{states.count(state)} {state}" for state in SIGNS if state in states)
    ran = [column for column in report.columns if not column.missing]
    parts = f"{_count(report.rows, 'case')} in {_count(ran, 'column')}"
    if report.comparisons:
        parts += f" and {_count(report.comparisons, 'comparison')}"
    return f"{parts}: {counted}."


def not_judged(report: Report) -> str:
    """Return which columns were not judged, by the option that asks for them; empty for none."""
    reasons: dict[str, list[str]] = {}
    for column in report.columns:
        if column.missing:
            option = column.missing.removeprefix(NOT_ASKED)
            reason = "see above" if column.is_asked else option
            reasons.setdefault(reason, []).append(printable(column.name))
    return ", ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


def verdict(report: Report) -> str:
    """Return the verdict in one word or two."""
    return ("Passed", "Failed", "Could not judge")[report.exit_code]


def failing(report: Report) -> list[Cell]:
    """Return the cells that make a report fail, in its order."""
    return [cell for cell in report.cells if cell.state in FAILURES]


def _count(entries: Sequence[object], noun: str) -> str:
    return f"{len(entries)} {noun}" if len(entries) == 1 else f"{len(entries)} {noun}s"


def _quoted(text: str) -> str:
    """Return a word of a command for a shell; control characters as bash spells them."""
    if printable(text) == text:
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"

"""Drift that is accepted: what failed, and by how much, when somebody last looked and agreed.

`baseline_file.py` says how it is kept in a file.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from gptoss_onnx.json_text import printable
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.report.document import FAILURES, Cell, Comparison, Report, State

MOST_FINDINGS = 200  # of one comparison; one that finds more than that cannot be accepted
MOST_LETTERS = 500  # of a name or a finding
# A failure is accepted up to this many times the recorded error: another machine, or another order
# of sums, moves large errors by less.
WORSE = 2.0
SAME = 2.0  # an error that moved by less than this factor is recorded as it was
# Errors below these are the order of float32 sums, and are recorded as these.
NOISE = {"max_abs": 1e-5, "kl": 1e-9}
TOP1_STEP = 0.001  # to which shares of top-1 are rounded

Error = float | Literal["not finite"]


@dataclass(frozen=True)
class CellRecord:
    """State and errors of a cell: by name, of `NOISE`, and the share of top-1; what is not known
    is left out.
    """

    state: State
    errors: Mapping[str, Error] = field(default_factory=dict)
    top1: float | None = None


@dataclass(frozen=True)
class ComparisonRecord:
    """State and findings of a comparison."""

    state: State
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """What is recorded of each case and column, and of each comparison."""

    cells: Mapping[str, Mapping[str, CellRecord]]
    comparisons: Mapping[str, ComparisonRecord]

    @classmethod
    def of(cls, report: Report, before: Self | None = None) -> Self:
        """Record what a report found, before any baseline was applied to it.

        Errors within `SAME` of those that `before` records stay as they are there, so that what
        changes is more than noise.
        """
        cells: dict[str, dict[str, CellRecord]] = {}
        for cell in report.cells:
            old = before.of_cell(cell) if before else None
            cells.setdefault(_key(cell.case), {})[_key(cell.column)] = _record(cell, old)
        comparisons = {
            _key(entry.name): ComparisonRecord(entry.state, tuple(_findings(entry)[:MOST_FINDINGS]))
            for entry in report.comparisons
        }
        return cls(cells, comparisons)

    def of_cell(self, cell: Cell) -> CellRecord | None:
        """Return what is recorded of a cell; None if nothing is."""
        return self.cells.get(_key(cell.case), {}).get(_key(cell.column))

    def apply(self, report: Report) -> Report:
        """Return the report with every failure that is recorded, and no worse, as `accepted`.

        What failed and now passes, and what is worse, says so in its note.
        """
        comparisons = [
            _compared(entry, self.comparisons.get(_key(entry.name))) for entry in report.comparisons
        ]
        cells = [_judged(cell, self.of_cell(cell)) for cell in report.cells]
        return replace(report, cells=tuple(cells), comparisons=tuple(comparisons))


def _judged(cell: Cell, record: CellRecord | None) -> Cell:
    if record is None:
        return cell
    if cell.state == "passed" and record.state in FAILURES:
        return replace(cell, note=_join(cell.note, _fixed(record.state)))
    if cell.state not in FAILURES:
        return cell
    if cell.state != record.state:
        return replace(cell, note=_join(cell.note, f"the baseline has it as {record.state}"))
    worse = _worse(cell.difference, record)
    if worse:
        return replace(cell, note=_join(cell.note, f"worse than the baseline: {worse}"))
    return replace(cell, state="accepted")


def _compared(entry: Comparison, record: ComparisonRecord | None) -> Comparison:
    if record is None:
        return entry
    if entry.state == "passed" and record.state in FAILURES:
        return replace(entry, note=_join(entry.note, _fixed(record.state)))
    if entry.state not in FAILURES or entry.state != record.state:
        return entry
    new = [text for text in _findings(entry) if text not in record.findings]
    if new:
        note = f"not in the baseline: {len(new)} findings, first {new[0]}"
        return replace(entry, note=_join(entry.note, note))
    return replace(entry, state="accepted")


def _worse(found: Difference | None, record: CellRecord) -> str:
    """Return in words what is worse than recorded by more than `WORSE`; nothing if nothing is."""
    if found is None:
        return ""
    parts = []
    for name in NOISE:
        value, recorded = getattr(found, name), record.errors.get(name)
        if value is None or recorded == "not finite":
            continue
        if recorded is None or not value <= WORSE * recorded:
            parts.append(f"{name} {value:.2g}, recorded {recorded or 'nothing'}")
    if found.top1 is not None and (
        record.top1 is None or 1 - found.top1 > WORSE * (1 - record.top1) + TOP1_STEP
    ):
        share = "nothing" if record.top1 is None else f"{record.top1:.1%}"
        parts.append(f"top-1 {found.top1:.1%}, recorded {share}")
    return f"{'; '.join(parts)} (up to {WORSE:g} times is accepted)" if parts else ""


def _record(cell: Cell, old: CellRecord | None) -> CellRecord:
    found = cell.difference
    if found is None:
        return CellRecord(cell.state)
    values = {name: getattr(found, name) for name in NOISE}
    errors = {
        name: _kept(value, NOISE[name], old.errors.get(name) if old else None)
        for name, value in values.items()
        if value is not None
    }
    top1 = None if found.top1 is None else _kept_share(found.top1, old.top1 if old else None)
    return CellRecord(cell.state, errors, top1)


def _kept(value: float, noise: float, old: Error | None) -> Error:
    """Return an error with two digits, or the old one if that is as good."""
    if not math.isfinite(value):
        return "not finite"
    value = max(value, noise)
    if isinstance(old, float) and old / SAME <= value <= old * SAME:
        return old
    return float(f"{value:.1e}")


def _kept_share(value: float, old: float | None) -> float:
    """Return a share of top-1 in steps, or the old one if about as many positions are wrong."""
    wrong = 1 - value
    if old is not None and (1 - old) / SAME <= wrong <= (1 - old) * SAME:
        return old
    return round(value / TOP1_STEP) / round(1 / TOP1_STEP)


def _findings(entry: Comparison) -> list[str]:
    return sorted(_key(str(finding)) for finding in entry.findings)


def _fixed(was: State) -> str:
    return f"fixed: renew the baseline, which has it as {was} (--write-baseline)"


def _join(note: str, more: str) -> str:
    return f"{note}; {more}" if note else more


def _key(text: str) -> str:
    """Return a name or a finding as a file may hold it; one that is cut off stays distinct."""
    whole = printable(text)
    if len(whole) <= MOST_LETTERS:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return f"{whole[: MOST_LETTERS - len(digest) - 1]}…{digest}"

"""The verdict as a plain-text table: comparisons, then cases by columns, then what people should
know.
"""

from collections.abc import Iterator, Sequence

from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.report.document import (
    FAILURES,
    JUDGED,
    Cell,
    Column,
    Comparison,
    Report,
    State,
)
from gptoss_onnx.validation.report.words import not_judged

SIGNS: dict[State, str] = {
    "passed": "ok",
    "failed": "FAILED",
    "refused": "REFUSED",
    "accepted": "accepted",
    "not available": "-",
}
MOST_FINDINGS = 20  # of one comparison that are printed; the JSON document has all


def table(report: Report) -> str:
    """Return a report as aligned lines; the last one is the verdict."""
    if report.error is not None:
        return f"NOT JUDGED: {report.error}"
    ran = [column for column in report.columns if not column.missing]
    lines = [line for entry in report.comparisons for line in _comparison(entry)]
    if ran:
        lines += ["", *_matrix(report, ran)] if lines else _matrix(report, ran)
    lines += _notes(report)
    return "\n".join([*lines, *_verdict(report, ran)])


def _comparison(entry: Comparison) -> list[str]:
    sign = SIGNS[entry.state]
    note = f" ({entry.note})" if entry.note else ""
    lines = [f"{entry.name}: {entry.description}: {sign}, {entry.seconds:.1f} s{note}"]
    lines += [f"  {finding}" for finding in entry.findings[:MOST_FINDINGS]]
    left = len(entry.findings) - MOST_FINDINGS
    return [*lines, f"  and {left} more"] if left > 0 else lines


def _matrix(report: Report, columns: Sequence[Column]) -> list[str]:
    """Return a line for each case: how many positions, then the largest error, KL and top-1 of
    each column.
    """
    cells = {(cell.case, cell.column): cell for cell in report.cells}
    header = ["case", "positions"]
    for column in columns:
        header += [column.name, "max abs", "KL (nats)", "top-1", "time"]
    rows = [header]
    for row in report.rows:
        found = [cells.get((row.name, column.name)) for column in columns]
        sizes = [cell.difference.positions for cell in found if cell and cell.difference]
        entry = [row.name, str(sizes[0]) if sizes else ""]
        for cell in found:
            entry += _cell(cell)
        rows.append(entry)
    widths = [max(len(row[index]) for row in rows) for index in range(len(header))]
    left = {0, *range(2, len(header), 5)}  # names and signs; all others are numbers
    lines = [
        "  ".join(
            text.ljust(width) if index in left else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _cell(cell: Cell | None) -> list[str]:
    if cell is None:
        return [""] * 5
    return [SIGNS[cell.state], *_numbers(cell.difference), f"{cell.seconds:.1f} s"]


def _numbers(found: Difference | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    return [_form(found.max_abs, ".1e"), _form(found.kl, ".1e"), _form(found.top1, ".1%")]


def _form(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _notes(report: Report) -> list[str]:
    """Return what was said of cells, once where all columns say the same, and where failing ones
    depart.
    """
    lines: dict[str, list[str]] = {}
    for cell in report.cells:
        if cell.note:
            lines.setdefault(f"{cell.case}: {cell.note}", []).append(cell.column)
    for column, text in _departures(report):
        lines.setdefault(text, []).append(column)
    every = {column.name for column in report.columns if not column.missing}
    return [
        f"  {text}" if set(columns) == every else f"  {', '.join(columns)}, {text}"
        for text, columns in lines.items()
    ]


def _departures(report: Report) -> Iterator[tuple[str, str]]:
    """Yield each column with the first case that departs at an op, and how many others do."""
    found: dict[tuple[str, int | None, str], list[Cell]] = {}
    for cell in report.cells:
        if cell.divergence is not None:
            place = (cell.column, cell.divergence.layer, cell.divergence.op)
            found.setdefault(place, []).append(cell)
    for (column, _, _), (first, *others) in found.items():
        assert first.divergence is not None
        count = f"; so do {len(others)} other cases" if len(others) > 1 else ""
        if len(others) == 1:
            count = f"; so does {others[0].case}"
        yield column, f"{first.case}: departs first at {first.divergence.text}{count}"


def _verdict(report: Report, columns: Sequence[Column]) -> list[str]:
    lines = [
        f"{column.name}: {column.runs}, against the float32 reference; {column.limits}"
        if column.limits
        else f"{column.name}: {column.runs}"
        for column in columns
    ]
    lines += [
        f"{column.name}: not judged: {column.missing}"
        for column in report.columns
        if column.missing and column.is_asked
    ]
    states = report.states()
    judged = sum(state in JUDGED for state in states)
    failed = sum(state in FAILURES for state in states)
    if report.passed:
        verdict = f"PASS: {judged} checks"
    elif failed:
        verdict = f"FAIL: {failed} of {judged} checks failed"
    else:
        lacking = [column.name for column in report.columns if column.named and column.missing]
        verdict = "NOT JUDGED"
        if judged and lacking:
            verdict += f": {', '.join(lacking)} asked for, and not there; {judged} checks passed"
    if "accepted" in states:
        verdict += f", {states.count('accepted')} accepted"
    if judged < len(states):
        verdict += f", {len(states) - judged} not available"
    left_out = not_judged(report)
    return [*lines, f"{verdict}; not judged: {left_out}" if left_out else verdict]

"""What `validate` has measured, as a section of a card: no more than the report says.

The document is that of `parity.json` (validation/report/schema.json). It may come from a stranger,
so each value is looked at before it is used. Paths in it are those of somebody's machine: they are
left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.hub.markdown import bounded, plain, table

NOT_VALIDATED = (
    "**Not yet validated.** `gptoss-onnx validate PACKAGE --reference CHECKPOINT` compares it with "
    "the PyTorch reference; `gptoss-onnx card PACKAGE` then writes here what was found."
)

_FORMAT, _VERSION = "gptoss-onnx-parity", 2
_VERDICTS = {0: "Passed", 1: "Failed", 2: "Could not judge"}
_SIGNS = {
    "passed": "✓",
    "failed": "✗ failed",
    "refused": "✗ refused",
    "accepted": "≈ accepted",
    "not available": "–",
}
_MOST_ROWS, _MOST_COLUMNS = 100, 8

Entry = Mapping[str, Any]


def measured(report: Entry | None) -> list[str]:
    """Return the lines of the section, from a parity report; None if there is none.

    Raises InputError for a document that is no parity report of the version that this reads.
    """
    if report is None:
        return [NOT_VALIDATED]
    found = (report.get("format"), report.get("format_version"))
    code = report.get("exit_code")
    if found != (_FORMAT, _VERSION) or type(code) is not int or code not in _VERDICTS:
        raise InputError(
            f"parity report: found format {bounded(repr(found[0]), 40)} of version "
            f"{bounded(repr(found[1]), 20)}, expected {_FORMAT} of version {_VERSION}"
        )
    lines = [
        f"`gptoss-onnx validate`, suite {plain(_text(report, 'suite'))}, against the float32 "
        f"PyTorch reference: **{_VERDICTS[code]}**. {_counts(report)}"
    ]
    if report.get("error"):
        lines += ["", f"Nothing could be judged: {plain(_text(report, 'error'))}"]
    compared = [
        [plain(_text(entry, "name")), plain(_text(entry, "description")), _sign(entry)]
        for entry in _entries(report, "comparisons")
    ]
    if compared:
        lines += ["", *table(["compared", "what", ""], compared)]
    columns = [entry for entry in _entries(report, "columns") if not entry.get("missing")]
    columns = columns[:_MOST_COLUMNS]
    if columns and report.get("cells"):
        lines += ["", *_matrix(report, columns), ""]
        lines += [f"- {plain(_text(it, 'name'))}: {plain(_text(it, 'runs'))}" for it in columns]
    missing = [it for it in _entries(report, "columns") if it.get("missing")]
    if missing:
        names = ", ".join(plain(_text(it, "name")) for it in missing[:_MOST_COLUMNS])
        lines += ["", f"Not judged: {names}."]
    return [*lines, "", f"Measured with {_pairs(report, 'versions')}; {_pairs(report, 'machine')}."]


def _matrix(report: Entry, columns: list[Entry]) -> list[str]:
    """Return a line for each case: its positions, and largest error, KL and top-1 by column."""
    names = [_text(entry, "name") for entry in columns]
    cells = {(_text(it, "case"), _text(it, "column")): it for it in _entries(report, "cells")}
    heads = ["case", "positions"]
    for name in names:
        heads += [plain(name), "max abs", "KL (nats)", "top-1"]
    rows = []
    for row in _entries(report, "rows"):
        case = _text(row, "name")
        found = [cells.get((case, name)) for name in names]
        sizes = [_number(_difference(cell), "positions", "d") for cell in found]
        line = [plain(case), next(filter(None, sizes), "")]
        for cell in found:
            line += ["", "", "", ""] if cell is None else [_sign(cell), *_errors(cell)]
        rows.append(line)
    lines = table(heads, rows[:_MOST_ROWS])
    left = len(rows) - _MOST_ROWS
    return lines if left <= 0 else [*lines, "", f"… and {left} more cases."]


def _errors(cell: Entry) -> list[str]:
    found = _difference(cell)
    forms = {"max_abs": ".1e", "kl": ".1e", "top1": ".1%"}
    return [_number(found, key, form) for key, form in forms.items()]


def _difference(cell: Entry | None) -> Entry:
    found = {} if cell is None else cell.get("difference")
    return found if isinstance(found, Mapping) else {}


def _counts(report: Entry) -> str:
    """Return how many checks ended in which way."""
    states = [it.get("state") for key in ("comparisons", "cells") for it in _entries(report, key)]
    counted = (f"{states.count(state)} {state}" for state in _SIGNS if state in states)
    return f"Checks: {', '.join(counted) or 'none'}."


def _sign(entry: Entry) -> str:
    return _SIGNS.get(_text(entry, "state"), "?")


def _entries(report: Entry, key: str) -> Iterator[Entry]:
    found = report.get(key)
    for entry in found if isinstance(found, list) else []:
        if isinstance(entry, Mapping):
            yield entry


def _text(entry: Entry, key: str) -> str:
    found = entry.get(key)
    return found if isinstance(found, str) else ""


def _number(entry: Entry, key: str, form: str) -> str:
    """Return a number in a form; what JSON lacks, such as `NaN`, is not finite."""
    found = entry.get(key)
    if isinstance(found, str):
        return "not finite"
    is_number = isinstance(found, int if form == "d" else (int, float))
    return format(found, form) if is_number and not isinstance(found, bool) else ""


def _pairs(report: Entry, key: str) -> str:
    found = report.get(key)
    pairs = found.items() if isinstance(found, Mapping) else ()
    said = [f"{plain(str(name))} {plain(str(value))}" for name, value in pairs]
    return ", ".join(said[:_MOST_COLUMNS]) or "nothing that is known"
